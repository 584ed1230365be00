// The reach of the short family, whose blocks hold all keys of a head, and its tiles. Tuned on an H200.
//
// The forward streams K and V of many heads through a ring in shared memory that holds all keys of at least one. The
// backward has two forms. "Packed": at most 64 rows and 64 keys, whole rows of S in registers, several heads a block.
// "Resident": Q, K, V and dO of a head in shared memory, dK and dV in registers.
//
// The longest sequence (Nq = Nk) by shared memory of a block; beyond it, and for the backward of grouped heads, the
// general kernels. Blackwell's 12.x takes the row of 99 KB.
//   head dim to       32   64   80   96  128        32   64   80   96  128
//                            forward                      backward
//   sm_86, 89  99 KB 640  256  192  128  128       256  176  144  112   80
//   sm_80     163 KB 640  512  384  320  256       256  272  240  128  128
//   sm_90     227 KB 640  640  576  448  384       256  272  272  128  128
// The backward stops where registers do (8 bytes a key and column of dK and dV, in fp32) or where Q, K, V and dO do.
// short_reach_test.cpp holds the table to the functions below.
#pragma once

#include <algorithm>
#include <cstdint>

namespace strobe::cuda::sm80 {

inline constexpr int kShortTile = 16;      // rows of a warp's tile of S or of its transpose
inline constexpr int kShortLongest = 640;  // of Nq and Nk; from here on rows are long enough for the general kernels
inline constexpr int kShortWidest = 128;   // native head dim
inline constexpr int kPackedLongest = 64;  // of Nq and Nk
inline constexpr int kPackedWarps = 4;     // of a block

/// At the start of a resident block's shared memory, for what all its threads look up.
inline constexpr int kHeaderBytes = 128;

constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

/// The resident backward: tiles of 16 keys a warp, whose dK and dV take head_dim registers a tile of each lane; two,
/// where they fit, halve the fragments of Q and dO read a product.
constexpr int resident_bwd_tiles(int columns) { return columns <= 80 ? 2 : 1; }
/// At most so many warps a block: a multiprocessor's registers are in four parts, and 8 warps may have 255 a lane.
inline constexpr int kResidentBwdWarps = 8;
/// The keys that the warps own, and those left for the tail tile: 16 keys that all warps share, so that 257 needs no
/// ninth warp, which would cost all of them a third of their registers.
constexpr int resident_bwd_owned_keys(int columns) {
  return kResidentBwdWarps * resident_bwd_tiles(columns) * kShortTile;
}
constexpr bool resident_bwd_has_tail(int columns) { return columns == 64 || columns == 80; }
constexpr int resident_bwd_warps_of(int seqlen_k, int columns) {
  const int keys = kShortTile * resident_bwd_tiles(columns);
  return std::clamp(round_up(seqlen_k, keys) / keys, 1, kResidentBwdWarps);
}

/// Bytes of shared memory of a head in the packed form.
constexpr int packed_bwd_bytes(int seqlen_q, int seqlen_k, int columns) {
  const int rows = round_up(seqlen_q, kShortTile), keys = round_up(seqlen_k, kShortTile);
  return 2 * (rows + keys) * columns * 2 + 2 * rows * keys * 2;  // Q, dO, K, V; P and dS
}

/// The forward takes this many keys of K and V, and rows of Q, at a time: the registers of S of 16 rows.
inline constexpr int kFwdChunk = 64;
inline constexpr int kFwdChunkTiles = kFwdChunk / kShortTile;
/// A slot of the ring of Q, and of that of K and V, has a chunk.
constexpr int fwd_q_slot_bytes(int columns) { return kFwdChunk * columns * 2; }
constexpr int fwd_slot_bytes(int columns) { return 2 * kFwdChunk * columns * 2; }
/// Of K and V: more would be out of use, and their barriers take room.
inline constexpr int kFwdMostSlots = 15;
/// Of Q: about enough for the rows that all warps have at a time.
constexpr int fwd_q_slots(int columns) { return columns <= 64 ? 4 : columns <= 96 ? 3 : 2; }
/// Warps of a block, as registers allow: 128, 168 or 255 a lane.
constexpr int fwd_warps(int columns, bool masked) { return columns > 96 ? 8 : columns > 64 || masked ? 12 : 16; }
/// At the start of a block's shared memory: barriers, and what there is to know about the rows of Q.
inline constexpr int kFwdHeaderBytes = 1024;
constexpr int fwd_bytes(int columns, int slots) {
  return kFwdHeaderBytes + fwd_q_slots(columns) * fwd_q_slot_bytes(columns) + slots * fwd_slot_bytes(columns);
}
constexpr int fwd_chunks(int rows) { return std::max(1, round_up(rows, kFwdChunk) / kFwdChunk); }
/// Slots of K and V, at least one for each chunk of a head; 0: there is no room for so many.
constexpr int fwd_slots(int shared_memory, int seqlen_k, int columns) {
  const int slots = (shared_memory - fwd_bytes(columns, 0)) / fwd_slot_bytes(columns);
  return slots < fwd_chunks(seqlen_k) ? 0 : std::min(slots, kFwdMostSlots);
}
/// How many warps copy, of heads in turn. One issues too slowly for heads of a single chunk. Each has slots of its own,
/// so there are as many as slots of Q, and the slots of K and V are a multiple.
constexpr int fwd_copiers(int seqlen_q, int seqlen_k, int slots, int columns) {
  return std::max(seqlen_q, seqlen_k) <= kFwdChunk && slots >= fwd_q_slots(columns) ? fwd_q_slots(columns) : 1;
}

/// `row_tiles` of 16 rows are between two barriers; their dS has `buffers` buffers, with one of them there is a third
/// barrier. The tail's dS is there for all rows, and its reduction takes a buffer.
struct ResidentBwdPlan {
  int row_tiles, buffers;
};
constexpr int resident_bwd_bytes(int seqlen_q, int seqlen_k, int columns, ResidentBwdPlan plan) {
  const int rows = round_up(seqlen_q, kShortTile), keys = round_up(seqlen_k, kShortTile);
  const int owned = std::min(keys, resident_bwd_owned_keys(columns));
  int buffers = plan.buffers * plan.row_tiles * kShortTile * owned * 2;
  if (keys > owned) buffers = std::max(buffers, kResidentBwdWarps * kShortTile * columns / 2 * 4);
  return kHeaderBytes + 2 * (rows + keys) * columns * 2 + buffers + rows * (keys - owned) * 2 +
         rows * 8;  // and LSE, delta
}
/// The warps share dQ in pieces of 16 rows by half of the columns: of the plans for which there is shared memory, the
/// one that leaves fewest warps without a piece; then the one with fewest barriers.
constexpr ResidentBwdPlan resident_bwd_plan(int shared_memory, int seqlen_q, int seqlen_k, int columns) {
  const int warps = resident_bwd_warps_of(seqlen_k, columns), all = round_up(seqlen_q, kShortTile) / kShortTile;
  const auto rounds = [&](int tiles) { return (2 * tiles + warps - 1) / warps; };
  ResidentBwdPlan best{1, 1};
  int least = 1 << 30;
  for (int tiles = 1; tiles <= std::min(std::max(all, 1), 8); ++tiles) {
    for (int buffers = 1; buffers <= 2; ++buffers) {
      if (resident_bwd_bytes(seqlen_q, seqlen_k, columns, {tiles, buffers}) > shared_memory) continue;
      const int stages = (all + tiles - 1) / tiles;
      const int cost = 4 * (all / tiles * rounds(tiles) + rounds(all % tiles)) + stages * (3 - buffers);
      if (cost < least) {
        best = {tiles, buffers};
        least = cost;
      }
    }
  }
  return best;
}

/// Warps of a head, and heads of a block, in the packed form.
constexpr int packed_warps(int longest) { return std::max(1, round_up(longest, kShortTile) / kShortTile); }
constexpr int packed_heads(int shared_memory, int warps, int head_bytes) {
  return std::min(kPackedWarps / warps, shared_memory / std::max(1, head_bytes));
}

constexpr bool in_packed_form(int64_t seqlen_q, int64_t seqlen_k) {
  return seqlen_q <= kPackedLongest && seqlen_k <= kPackedLongest;
}

/// Whether the family is faster than the general kernels under a window, of whose hidden keys these load none: at
/// (450, 12, 197, 64), causal, .286 instead of .420 ms, at (32, 8, 128, 64) .018 instead of .016, at (32, 8, 400, 64)
/// .056 instead of .049 (H200).
constexpr bool short_fwd_suits_windows(int64_t seqlen_q, int64_t seqlen_k, int columns) {
  const int64_t longest = std::max(seqlen_q, seqlen_k);
  return in_packed_form(seqlen_q, seqlen_k) || (columns <= 64 && longest > 128 && longest <= 288);
}

/// Whether the family runs a forward call on a device whose blocks get `shared_memory` bytes.
constexpr bool short_fwd_reaches(int shared_memory, int64_t seqlen_q, int64_t seqlen_k, int columns) {
  if (columns > kShortWidest || seqlen_q > kShortLongest || seqlen_k > kShortLongest) return false;
  return fwd_slots(shared_memory, static_cast<int>(seqlen_k), columns) > 0;
}

/// The same for a backward call; grouped heads, whose dK and dV are sums over a group, are left to the general kernels.
constexpr bool short_bwd_reaches(int shared_memory, int64_t seqlen_q, int64_t seqlen_k, int columns, bool grouped) {
  if (columns > kShortWidest || grouped || seqlen_q > kShortLongest || seqlen_k > kShortLongest) return false;
  const int nq = static_cast<int>(seqlen_q), nk = static_cast<int>(seqlen_k);
  const int tail = resident_bwd_has_tail(columns) ? kShortTile : 0;
  return nk <= resident_bwd_owned_keys(columns) + tail && resident_bwd_bytes(nq, nk, columns, {1, 1}) <= shared_memory;
}

}  // namespace strobe::cuda::sm80
