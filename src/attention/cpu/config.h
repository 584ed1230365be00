// Tuning numbers of the CPU kernels. Results do not depend on the number of threads, nor on the rows of a block; they
// do depend, in the last bit, on where key blocks and key chunks begin, which is therefore a function of nothing but
// the sequence's own length.
#pragma once

#include <cstdint>

namespace strobe::cpu {

// Keys of one block of the forward pass: the step of the online softmax. 384 and 512 measured the same on Zen 5.
inline constexpr int64_t kFwdKeyBlock = 256;
// Rows of queries that meet one key block before the next is taken. 192 measured the same on Zen 5.
inline constexpr int64_t kFwdQueryBlock = 96;
// Rows whose scores against a key block are held at once: 24 x 256 floats are 24 KB, half of a 48 KB L1.
inline constexpr int64_t kFwdStripRows = 24;
// Under a causal mask or a window a lower strip wastes less along the edge: 5 % faster at N = 40 (Zen 5).
inline constexpr int64_t kFwdLimitedStripRows = 12;

// Tile of the backward pass. 128 keys are two tiles of 64 columns; 128 x 96 was 2 to 3 % faster than 96 x 96 and as
// fast as 128 x 128 and 192 x 64 (Zen 5, 48 KB L1, 1 MB L2).
inline constexpr int64_t kBwdKeyBlock = 128;
inline constexpr int64_t kBwdQueryBlock = 96;
// Under a causal mask or a window a lower tile wastes less along the edge: 15 % faster at N = 200 (Zen 5).
inline constexpr int64_t kBwdLimitedQueryBlock = 48;

// Keys that one worker takes at a time where heads are few, and the most such chunks of one sequence, which bounds the
// memory for their parts of dQ.
inline constexpr int64_t kBwdKeyChunk = 4 * kBwdKeyBlock;
inline constexpr int64_t kBwdMostChunks = 8;

}  // namespace strobe::cpu
