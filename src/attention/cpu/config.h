// Tuning numbers of the CPU kernels. Results do not depend on the number of threads, nor on the rows of a block; they
// do depend, in the last bit, on where key blocks and key chunks begin, which is therefore a function of nothing but
// the sequence's own length.
#pragma once

#include <cstdint>

namespace strobe::cpu {

// Keys of one block of the forward pass: the step of the online softmax.
inline constexpr int64_t kFwdKeyBlock = 256;
// Rows of queries that meet one key block before the next is taken.
inline constexpr int64_t kFwdQueryBlock = 96;
// Rows whose scores against a key block are held at once: 24 x 256 floats are 24 KB, half of a 48 KB L1.
inline constexpr int64_t kFwdStripRows = 24;

// Tile of the backward pass: P and dS are each 96 x 96 floats.
inline constexpr int64_t kBwdKeyBlock = 96;
inline constexpr int64_t kBwdQueryBlock = 96;

// Keys that one worker takes at a time where heads are few, and the most such chunks of one sequence, which bounds the
// memory for their parts of dQ.
inline constexpr int64_t kBwdKeyChunk = 6 * kBwdKeyBlock;
inline constexpr int64_t kBwdMostChunks = 8;

}  // namespace strobe::cpu
