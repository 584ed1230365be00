// The streamed backward of short sequences on sm_90: what it reaches and where things stand in its shared memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "src/attention/cuda/sm80/short_config.h"

namespace strobe::cuda::sm90 {

inline constexpr int kTile = sm80::kShortTile;
inline constexpr int kWarps = 8;  // that compute; four more copy and make the terms of rows
inline constexpr int kThreads = 12 * 32;
inline constexpr int kMostSlots = 16;     // of a ring
inline constexpr int kHeader = 1024;      // bytes, for the barriers; tiles begin at multiples of it
inline constexpr int kMostBoxRows = 256;  // of the copy engine
inline constexpr int kMostTiles = 14;     // of keys, where a warp has nothing but dQ
inline constexpr int kShortest = 128;     // up to this many rows or keys, several blocks of sm80/ are as fast

/// Tiles of rows in a slot of the ring of Q, dO and O.
constexpr int slot_tiles(int columns) { return columns <= 64 ? 2 : 1; }
constexpr int slot_rows(int columns) { return slot_tiles(columns) * kTile; }
/// One in so many pairs of row tiles that a warp with 16 keys, and one without, have of dQ.
inline constexpr int kHelpsWithKeys = 3, kHelpsWithout = 2;
constexpr int tiles_of(int n) { return (n + kTile - 1) / kTile; }

/// Byte offsets from the start of the block's shared memory.
struct StreamPlan {
  uint32_t units;            // heads of sequences, of which a block has every so many
  int row_tiles, key_tiles;  // key_tiles: those that warps own
  int owners;                // warps with keys; all of them share dQ if they are all warps
  int help;     // every so many-th pair of row tiles has its dQ from a helper, the others from one warp; 0: all from it
  int kv_rows;  // of K and of V: of the tiles of keys and, where a last key is beyond them, of one more
  int q_slots, ds_slots;
  int head_bytes;   // of K and V of a head, at kHeader, for two heads
  int q, q_narrow;  // columns up to 64, and the others
  int ds, ds_bytes, terms, tail, bytes;

  constexpr bool has_tail() const { return kv_rows > key_tiles * kTile; }
  constexpr bool shares_grad_q() const { return owners == kWarps; }
  /// The two warps of dQ are one of a scheduler: beside that with most of it stands one with few keys.
  static constexpr int kGradQWarp = kWarps - 1, kHelper = 3;
  /// Whose first key comes so many pairs of key tiles in.
  static constexpr int owner(int warp) { return warp == kHelper ? kWarps - 2 : warp > kHelper ? warp - 1 : warp; }
  /// Warps that read K: those with keys, and those without that have dQ.
  constexpr int key_readers() const { return owners + (shares_grad_q() ? 0 : help == kHelpsWithout ? 2 : 1); }
  constexpr bool is_helped(int row_tile) const { return help > 0 && row_tile / 2 % help == help - 1; }
};

/// bytes is 0 where the form does not reach.
constexpr StreamPlan stream_plan(int shared_memory, int seqlen_q, int seqlen_k, int columns) {
  StreamPlan p{};
  p.row_tiles = tiles_of(seqlen_q);
  p.key_tiles = tiles_of(seqlen_k);
  if (p.key_tiles > kMostTiles) p.key_tiles = 2 * kWarps;
  p.kv_rows = p.key_tiles * kTile;
  if (seqlen_k > p.kv_rows + 1) return p;
  if (seqlen_k > p.kv_rows) p.kv_rows += kTile;
  p.owners = (p.key_tiles + 1) / 2;
  const int helper_tiles = p.key_tiles - 2 * StreamPlan::owner(StreamPlan::kHelper);  // of keys
  p.help = p.shares_grad_q() || helper_tiles > 1 ? 0 : helper_tiles == 1 ? kHelpsWithKeys : kHelpsWithout;
  p.head_bytes = 2 * p.kv_rows * columns * 2;
  p.q = kHeader + 2 * p.head_bytes;
  p.ds_bytes = sm80::round_up(p.kv_rows * kTile * 2, kHeader);  // dQ is stored by way of its dS
  const int rows = 3 * slot_rows(columns), terms = slot_rows(columns) * 8;
  const int tail = p.has_tail() ? kWarps * 2 * columns * 4 : 0;
  const int room = shared_memory - p.q - tail - kHeader;  // and for the rounding of p.ds
  for (p.ds_slots = 6; p.ds_slots >= 2; --p.ds_slots) {
    p.q_slots = std::min((room - p.ds_slots * p.ds_bytes) / (rows * columns * 2 + terms), kMostSlots);
    if (p.q_slots >= (p.ds_slots > 3 ? 4 : 2)) break;
  }
  if (p.q_slots < 2) return p;
  p.q_narrow = p.q + p.q_slots * rows * std::min(columns, 64) * 2;
  p.ds = sm80::round_up(p.q + p.q_slots * rows * columns * 2, kHeader);
  p.terms = p.ds + p.ds_slots * p.ds_bytes;
  p.tail = p.terms + p.q_slots * terms;
  p.bytes = p.tail + tail;
  return p;
}

/// Native head dims: rows of 64 columns and of 16, as the copy engine permutes them.
constexpr bool is_streamed(int columns) { return columns == 64 || columns == 80; }

constexpr bool stream_reaches(int shared_memory, int64_t seqlen_q, int64_t seqlen_k, int columns) {
  if (!is_streamed(columns) || seqlen_q > sm80::kShortLongest || seqlen_k > sm80::kShortLongest) return false;
  if (seqlen_q <= kShortest || seqlen_k <= kShortest) return false;
  return stream_plan(shared_memory, static_cast<int>(seqlen_q), static_cast<int>(seqlen_k), columns).bytes > 0;
}

}  // namespace strobe::cuda::sm90
