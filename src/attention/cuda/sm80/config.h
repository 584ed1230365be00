// Tuning numbers of the sm_80 kernels. Shared memory must fit the 99 KB of sm_86 and sm_89.
#pragma once

namespace strobe::cuda::sm80 {

inline constexpr int kSharedMemory = 99 * 1024;  // of a block, on sm_86, sm_89 and sm_120; sm_80 has 163, sm_90 227 KB

inline constexpr int kLargeSharedMemory = 163 * 1024;  // of sm_80

inline constexpr float kLog2E = 1.4426950408889634f;

/// The forward's tile: kWarps warps of kRowTiles x 16 query rows each, against kKeys keys at a time in kStages buffers.
/// Two row tiles a warp halve the fragments of K and V read a product; they fit the registers up to a head dim of 128.
struct FwdTile {
  int warps, row_tiles, keys;
  bool queries_in_registers;  // else their fragments are read again at every key block

  constexpr int rows() const { return warps * row_tiles * 16; }
  constexpr int threads() const { return warps * 32; }
};

// Dropout takes registers: half the keys at a time, or half the rows.
constexpr FwdTile fwd_tile(int head_dim, bool dropout) {
  if (head_dim <= 64) return {4, 2, dropout ? 32 : 64, true};
  if (head_dim <= 96) return {4, 2, 32, false};
  if (head_dim <= 128) return {4, dropout ? 1 : 2, dropout ? 64 : 32, false};
  return {4, 1, 32, false};
}

/// The tile of the backward's pass over keys: key_tiles x 16 keys a warp, `rows` queries at a time in two buffers.
struct BwdKvTile {
  int warps, key_tiles, rows;

  constexpr int keys() const { return warps * key_tiles * 16; }
  constexpr bool operator==(const BwdKvTile&) const = default;
  constexpr int threads() const { return warps * 32; }
};

// Reading fragments from shared memory is the limit: two key tiles a warp halve those of Q and dO, where dK and dV
// leave the registers. A head dim of 256 leaves them for one of dK and dV, and shared memory for few queries.
// `large`: for devices with kLargeSharedMemory.
constexpr BwdKvTile bwd_kv_tile(int head_dim, bool large) {
  if (head_dim <= 32) return {8, 1, 64};
  if (head_dim <= 64) return {4, 2, 64};
  if (head_dim <= 80) return {8, 1, 64};
  if (head_dim <= 96) return {8, 1, large ? 64 : 32};
  if (head_dim <= 128) return large ? BwdKvTile{8, 1, 64} : BwdKvTile{4, 1, 32};
  return {4, 1, 16};
}

/// Whether the pass over keys has registers for dQ too.
constexpr bool bwd_sums_queries(int head_dim) { return head_dim <= 128; }

/// The tile of the backward's pass over queries, for dQ alone: 16 rows a warp, `keys` at a time in two buffers.
struct BwdQTile {
  int warps, keys;

  constexpr int rows() const { return warps * 16; }
  constexpr int threads() const { return warps * 32; }
};

constexpr BwdQTile bwd_q_tile(int head_dim) {
  if (head_dim <= 96) return {4, 64};
  if (head_dim <= 128) return {4, 32};
  return {2, 16};
}

}  // namespace strobe::cuda::sm80
