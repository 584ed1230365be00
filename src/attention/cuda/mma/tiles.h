// The tiles of the kernels; which of them an architecture takes for a head dim is in its config.h.
#pragma once

namespace strobe::cuda {

inline constexpr int kWidestFlash = 128;  // native head dim of flash_attn

/// The forward's tile: `warps` of row_tiles x 16 query rows each, against `keys` at a time in two buffers.
struct FwdTile {
  int warps, row_tiles, keys;
  bool queries_in_registers;  // else their fragments are read again at every key block

  constexpr int rows() const { return warps * row_tiles * 16; }
  constexpr int threads() const { return warps * 32; }
};

/// The tile of the backward's pass over keys: key_tiles x 16 keys a warp, `rows` queries at a time in two buffers.
struct BwdKvTile {
  int warps, key_tiles, rows;
  int column_warps = 1;    // warps with the same keys: each has a part of the rows' scores and of dK's, dV's columns
  int dropout_strip = 32;  // query rows whose scores a warp has in registers at once: so many with dropout, else 32
  int score_tiles = 2;     // of dS in shared memory; with one the block waits twice for each tile of queries

  constexpr int keys() const { return warps / column_warps * key_tiles * 16; }
  constexpr bool operator==(const BwdKvTile&) const = default;
  constexpr int threads() const { return warps * 32; }
};

/// The tile of the backward's pass over queries, for dQ alone: 16 rows a warp, `keys` at a time in two buffers.
struct BwdQTile {
  int warps, keys;

  constexpr int rows() const { return warps * 16; }
  constexpr int threads() const { return warps * 32; }
};

}  // namespace strobe::cuda
