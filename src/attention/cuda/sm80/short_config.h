// The reach of the short family, whose blocks hold all keys of a head, and its tiles. Tuned on an H200.
//
// Two forms. "Packed": at most 64 rows and 64 keys, whole rows of S in registers, several heads a block. "Resident":
// K and V of a head in shared memory, which in the backward also holds Q and dO, while dK and dV stay in registers.
//
// The longest sequence (Nq = Nk, multiples of 16) by shared memory of a block; beyond it the general kernels:
//   head dim          32   64   80   96  128        32   64   80   96  128
//                          forward                         backward
//   sm_75 -            -    -    -    -    -         -    -    -    -    -   (no cp.async: the general kernels)
//   sm_86, 89  99 KB 640  384  304  256  192       320  160  128  112   80
//   sm_80     163 KB 640  640  512  432  320       320  272  224  192  144
//   sm_90     227 KB 640  640  640  592  448       320  272  272  208  160
// short_reach_test.cpp holds the table to this.
#pragma once

#include <algorithm>
#include <cstdint>

namespace strobe::cuda::sm80 {

inline constexpr int kShortTile = 16;      // rows of a warp's tile of S or of its transpose
inline constexpr int kShortLongest = 640;  // of Nq and Nk; from here on rows are long enough for the general kernels
inline constexpr int kPackedLongest = 64;  // of Nq and Nk
inline constexpr int kPackedWarps = 4;     // of a block

constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

/// The columns of the tile that holds rows of this head dim: the native dims; the others are padded with zeros.
constexpr int short_columns(int64_t head_dim) {
  for (const int columns : {32, 64, 80, 96, 128}) {
    if (head_dim <= columns) return columns;
  }
  return 0;
}

/// The resident backward: tiles of 16 keys a warp, whose dK and dV take head_dim registers a tile of each lane; two,
/// where they fit, halve the fragments of Q and dO read a product.
constexpr int resident_bwd_tiles(int columns) { return columns <= 80 ? 2 : 1; }
/// At most so many warps a block. A multiprocessor's registers are in four parts: 8 warps may have 255, 12 have 168.
constexpr int resident_bwd_warps(int columns) { return columns == 32 || columns == 96 ? 12 : 8; }
constexpr int resident_bwd_warps_of(int seqlen_k, int columns) {
  const int keys = kShortTile * resident_bwd_tiles(columns);
  return std::max(1, round_up(seqlen_k, keys) / keys);
}

/// Bytes of shared memory of a head in the packed form.
constexpr int packed_fwd_bytes(int seqlen_q, int seqlen_k, int columns) {
  return (round_up(seqlen_q, kShortTile) + 2 * round_up(seqlen_k, kShortTile)) * columns * 2;
}
constexpr int packed_bwd_bytes(int seqlen_q, int seqlen_k, int columns) {
  const int rows = round_up(seqlen_q, kShortTile), keys = round_up(seqlen_k, kShortTile);
  return 2 * (rows + keys) * columns * 2 + 2 * rows * keys * 2;  // Q, dO, K, V; P and dS
}

constexpr int resident_fwd_bytes(int seqlen_k, int columns) { return 2 * round_up(seqlen_k, kShortTile) * columns * 2; }
/// `row_tiles` of 16 rows are between two barriers; their dS has two buffers.
constexpr int resident_bwd_bytes(int seqlen_q, int seqlen_k, int columns, int row_tiles) {
  const int rows = round_up(seqlen_q, kShortTile), keys = round_up(seqlen_k, kShortTile);
  return 2 * (rows + keys) * columns * 2 + 2 * row_tiles * kShortTile * keys * 2 + rows * 8;  // and LSE, delta
}
/// Between two barriers the warps share dQ in pieces of 16 rows by 16 columns: the number of row tiles, of those for
/// which there is shared memory, that leaves fewest warps without a piece.
constexpr int resident_bwd_row_tiles(int shared_memory, int seqlen_q, int seqlen_k, int columns) {
  const int warps = resident_bwd_warps_of(seqlen_k, columns), all = round_up(seqlen_q, kShortTile) / kShortTile;
  const auto rounds = [&](int tiles) { return (tiles * (columns / 16) + warps - 1) / warps; };
  int best = 1, fewest = all * rounds(1);
  for (int tiles = 2; tiles <= std::min(all, 8); ++tiles) {
    if (resident_bwd_bytes(seqlen_q, seqlen_k, columns, tiles) > shared_memory) break;
    const int count = all / tiles * rounds(tiles) + rounds(all % tiles);
    if (count < fewest) {
      best = tiles;
      fewest = count;
    }
  }
  return best;
}

constexpr bool in_packed_form(int64_t seqlen_q, int64_t seqlen_k) {
  return seqlen_q <= kPackedLongest && seqlen_k <= kPackedLongest;
}

/// Whether the family runs a forward call on a device whose blocks get `shared_memory` bytes.
constexpr bool short_fwd_reaches(int shared_memory, int64_t seqlen_q, int64_t seqlen_k, int64_t head_dim) {
  const int columns = short_columns(head_dim);
  if (columns == 0 || seqlen_q > kShortLongest || seqlen_k > kShortLongest) return false;
  const int nq = static_cast<int>(seqlen_q), nk = static_cast<int>(seqlen_k);
  if (in_packed_form(nq, nk)) return packed_fwd_bytes(nq, nk, columns) <= shared_memory;
  return resident_fwd_bytes(nk, columns) <= shared_memory;
}

/// The same for a backward call.
constexpr bool short_bwd_reaches(int shared_memory, int64_t seqlen_q, int64_t seqlen_k, int64_t head_dim) {
  const int columns = short_columns(head_dim);
  if (columns == 0 || seqlen_q > kShortLongest || seqlen_k > kShortLongest) return false;
  const int nq = static_cast<int>(seqlen_q), nk = static_cast<int>(seqlen_k);
  return resident_bwd_warps_of(nk, columns) <= resident_bwd_warps(columns) &&
         resident_bwd_bytes(nq, nk, columns, 1) <= shared_memory;
}

}  // namespace strobe::cuda::sm80
