// Backward of one head (of one key/value head and its group of query heads) in one block and one launch. Each warp owns
// 16 keys: it computes S^T and dP^T of them against 16 rows at a time, whose accumulators are at once the A fragments
// of dV += P^T dO and dK += dS^T Q, so dK and dV never leave its registers. dS goes to shared memory once, and after a
// barrier the warps share dQ = dS K in pieces of 16 rows by 16 columns, each complete: dS covers all keys.
#pragma once

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/sm80/short_bwd_packed.cuh"

namespace strobe::cuda::sm80 {

/// What a warp keeps of its keys in registers for the whole loop, where there is room: else it reads the fragments
/// again for every row tile.
enum class Keep { kNone, kK, kKAndV };

constexpr Keep resident_bwd_keep(int columns) {
  return columns == 32 ? Keep::kKAndV : columns == 64 || columns == 128 ? Keep::kK : Keep::kNone;
}

/// Of one row, for the loop: base of the exponent, and delta - dLSE.
struct RowTerms {
  float base, delta;
};

/// Writes the terms of rows [0, rows): four lanes a row read dO and O from global memory, in an order that no other
/// item of the batch changes.
template <class T>
__device__ inline void compute_row_terms(const BwdCall& c, const Sequence& s, int head, RowTerms* terms, int rows) {
  const T* const out = s.q_rows<T>(c, c.out, head);
  const T* const grad_out = s.q_rows<T>(c, c.grad_out, head);
  const int64_t lse_offset = s.lse_offset(c, head);
  const int quad_lane = threadIdx.x % 4;
  for (int row = threadIdx.x / 4; row < rows; row += blockDim.x / 4) {  // rows: a multiple of 8, of a warp's
    float delta = 0.0f;
    RowTerms result{kInfinity, 0.0f};
    if (row < s.end_q) {
#pragma unroll 4
      for (int column = quad_lane * kChunkElements; column < c.head_dim; column += 4 * kChunkElements) {
        const uint4 o = __ldg(reinterpret_cast<const uint4*>(out + row * c.out.row_stride + column));
        const uint4 g = __ldg(reinterpret_cast<const uint4*>(grad_out + row * c.grad_out.row_stride + column));
        const uint32_t ow[4] = {o.x, o.y, o.z, o.w}, gw[4] = {g.x, g.y, g.z, g.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 x = Element<T>::unpack(ow[i]), y = Element<T>::unpack(gw[i]);
          delta += x.x * y.x + x.y * y.y;
        }
      }
    }
    delta = quad_sum(delta);
    if (row < s.end_q) {
      const float lse_gradient = c.grad_softmax_lse == nullptr ? 0.0f : c.grad_softmax_lse[lse_offset + row];
      result = {exponent_base(c.softmax_lse[lse_offset + row]), delta - lse_gradient};
    }
    if (quad_lane == 0) terms[row] = result;
  }
}

/// kTiles x 16 keys of one key/value head.
template <class T, int kColumns, int kTiles, Keep kKeep, bool kMasked>
class ResidentKeys {
  using AReader = FragmentReader<kColumns, Fragment::kA>;
  using BReader = FragmentReader<kColumns, Fragment::kB>;
  using BTransReader = FragmentReader<kColumns, Fragment::kBTrans>;
  static constexpr int kSteps = kColumns / 16;
  using Products = float[kTiles][2][4];  // of S^T or dP^T: keys by 16 rows

 public:
  __device__ ResidentKeys(const BwdCall& c, const Visibility& see, int first_key, int lane)
      : see_(see),
        first_key_(first_key),
        lane_(lane),
        log2_scale_(c.softmax_scale * kLog2E),
        limited_(c.window_left < kUnlimited || c.window_right < kUnlimited) {}

  __device__ bool sees_any(Range keys) const { return first_key_ < keys.end && first_key_ + kTiles * 16 > keys.begin; }

  __device__ void load(uint32_t k_tile, uint32_t v_tile) {
    k_tile_ = k_tile;
    v_tile_ = v_tile;
    if constexpr (kKeep != Keep::kNone) load_fragments(k_, k_tile);
    if constexpr (kKeep == Keep::kKAndV) load_fragments(v_, v_tile);
  }

  /// Rows [first, first + 16): adds to dK and dV, writes dS to `ds_tile`, the [key][row] tile of these rows.
  __device__ void add_rows(int first, uint32_t q_tile, uint32_t do_tile, uint32_t ds_tile, const RowTerms* terms,
                           const Dropout* dropout, float keep_scale) {
    const bool partial =
        kMasked && limited_ && !all_see(see_, first, first + kShortTile, first_key_, first_key_ + 16 * kTiles);
    const bool edge = partial || first_key_ + 16 * kTiles > see_.end_k;
    Products p = {}, ds = {};
    multiply(p, q_tile, first, k_, kKeep != Keep::kNone, k_tile_);
    float delta[2][2];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const auto both = *reinterpret_cast<const float4*>(terms + first + 8 * t + accumulator_column(lane_));
      delta[t][0] = both.y;
      delta[t][1] = both.w;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          p[i][t][e] = exp2_approx(p[i][t][e] * log2_scale_ - (e % 2 == 0 ? both.x : both.z));
        }
      }
    }
    if (edge) mask(p, first);
    multiply(ds, do_tile, first, v_, kKeep == Keep::kKAndV, v_tile_);
    uint32_t a[kTiles][4];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint32_t kept = kMasked && dropout != nullptr ? kept_of(*dropout, first, i) : 0xFFu;
      float dropped[2][4];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool stays = !kMasked || (kept >> (4 * t + e) & 1) != 0;
          dropped[t][e] = stays ? p[i][t][e] : 0.0f;
          const float gradient = !kMasked ? ds[i][t][e] : stays ? ds[i][t][e] * keep_scale : 0.0f;
          ds[i][t][e] = p[i][t][e] * (gradient - delta[t][e % 2]);
        }
      }
      accumulators_to_a<T>(a[i], dropped[0], dropped[1]);
    }
    add_products(dv_, a, do_tile, first, partial);
    if (edge) mask(ds, first);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      accumulators_to_a<T>(a[i], ds[i][0], ds[i][1]);
      if (first_key_ + 16 * i >= see_.end_k) break;  // the tile ends there
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const int key = first_key_ + 16 * i + accumulator_row(lane_) + w % 2 * 8;
        const uint32_t address = ds_tile + KeyBlockLayout::offset(key, w / 2) + accumulator_column(lane_) * 2;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(a[i][w]) : "memory");
      }
    }
    add_products(dk_, a, q_tile, first, partial);
  }

  __device__ void store(const BwdCall& c, const Sequence& s, int head, float keep_scale) const {
    write(c, s, c.grad_k, head, dk_, c.softmax_scale);
    write(c, s, c.grad_v, head, dv_, keep_scale);
  }

 private:
  __device__ void load_fragments(uint32_t (&a)[kTiles][kSteps][4], uint32_t tile) const {
    const AReader reader(tile, lane_, first_key_);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int k = 0; k < kSteps; ++k) reader.load(a[i][k], 16 * i, 16 * k);
    }
  }

  /// c[key][row] += A B^T; A: fragments, or the tile they are read from.
  template <class Fragments>
  __device__ void multiply(Products& c, uint32_t b_tile, int first, const Fragments& fragments, bool kept,
                           uint32_t a_tile) const {
    const AReader a_reader(a_tile, lane_, first_key_);
    const BReader b_reader(b_tile, lane_);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t b[4];
      b_reader.load(b, first, 16 * k);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t a[4];
        if (kept) {
#pragma unroll
          for (int w = 0; w < 4; ++w) a[w] = fragments[i][k][w];
        } else {
          a_reader.load(a, 16 * i, 16 * k);
        }
        Element<T>::mma_m16n8k16(c[i][0], a, b[0], b[1]);
        Element<T>::mma_m16n8k16(c[i][1], a, b[2], b[3]);
      }
    }
  }

  __device__ uint32_t kept_of(const Dropout& dropout, int first, int tile) const {
    const int key = first_key_ + 16 * tile;
    const uint32_t kept =
        dropout.kept_of_transpose(first + accumulator_column(lane_), key / 32 * 32 + accumulator_row(lane_));
    return kept >> (key / 16 % 2 * 8);
  }

  __device__ bool sees(int row, int key) const {
    const Range keys = kMasked ? see_.keys_of(row) : Range{0, see_.end_k};
    return key >= keys.begin && key < keys.end;
  }

  __device__ void mask(Products& c, int first) const {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = first + 8 * t + accumulator_column(lane_) + e % 2;
          if (!sees(row, first_key_ + 16 * i + accumulator_row(lane_) + e / 2 * 8)) c[i][t][e] = 0.0f;
        }
      }
    }
  }

  /// out[key][d] += A[key][row] B[row][d].
  __device__ void add_products(float (&out)[kTiles][kColumns / 8][4], const uint32_t (&a)[kTiles][4], uint32_t b_tile,
                               int first, bool partial) const {
    const BTransReader reader(b_tile, lane_);
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t b[4];
      reader.load(b, first, 16 * d);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const auto seen = [&](int m, int k) { return sees(first + k, first_key_ + 16 * i + m); };
        multiply_add<T, kMasked>(out[i][2 * d], out[i][2 * d + 1], a[i], b, partial, seen, lane_);
      }
    }
  }

  __device__ void write(const BwdCall& c, const Sequence& s, const Strided& gradient, int head,
                        const float (&out)[kTiles][kColumns / 8][4], float factor) const {
    T* const data = s.k_rows<T>(c, gradient, head);
    const float factors[2] = {factor, factor};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      T* row[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int key = first_key_ + 16 * i + accumulator_row(lane_) + 8 * r;
        row[r] = key < s.end_k ? data + key * gradient.row_stride : nullptr;
      }
      store_rows<T>(out[i], factors, row, c.head_dim, lane_);
    }
  }

  const Visibility& see_;
  int first_key_, lane_;
  float log2_scale_;
  bool limited_;
  uint32_t k_tile_, v_tile_;
  uint32_t k_[kTiles][kSteps][4], v_[kTiles][kSteps][4];
  float dk_[kTiles][kColumns / 8][4] = {}, dv_[kTiles][kColumns / 8][4] = {};
};

/// dQ of rows [first, first + 16), columns [column, column + 16): dS K over the key tiles [begin, end).
template <class T, int kColumns, bool kMasked>
__device__ inline void write_grad_q(const BwdCall& c, const Sequence& s, const Visibility& see, int head, int first,
                                    int column, uint32_t ds_tile, uint32_t k_tile, int begin, int end, int lane) {
  const FragmentReader<16, Fragment::kATrans> a_reader(ds_tile, lane);
  const FragmentReader<kColumns, Fragment::kBTrans> b_reader(k_tile, lane);
  const bool limited = c.window_left < kUnlimited || c.window_right < kUnlimited;
  float dq[2][4] = {};
#pragma unroll 4
  for (int tile = begin; tile < end; ++tile) {
    uint32_t a[4], b[4];
    a_reader.load(a, tile * kShortTile, 0);
    b_reader.load(b, tile * kShortTile, column);
    const int first_key = tile * kShortTile;
    const bool partial =
        kMasked && limited && !all_see(see, first, first + kShortTile, first_key, first_key + kShortTile);
    const auto sees = [&](int m, int k) {
      const Range keys = see.keys_of(first + m);
      return first_key + k >= keys.begin && first_key + k < keys.end;
    };
    multiply_add<T, kMasked>(dq[0], dq[1], a, b, partial, sees, lane);
  }
  T* const data = s.q_rows<T>(c, c.grad_q, head) + column;
  T* row[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = first + accumulator_row(lane) + 8 * r;
    row[r] = i < s.end_q ? data + i * c.grad_q.row_stride : nullptr;
  }
  const float factor[2] = {c.softmax_scale, c.softmax_scale};
  store_rows<T>(dq, factor, row, c.head_dim - column, lane);
}

template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(resident_bwd_warps(kColumns) * 32, 1)
    short_bwd_resident(const __grid_constant__ BwdCall c, int row_tiles) {
  extern __shared__ __align__(128) unsigned char shared[];
  const Work w = work(c, blockIdx.x, c.num_heads_k);
  const Sequence& s = w.sequence;
  const Visibility see(c, s);
  const Team team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), 0};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;

  const int rows = round_up(s.end_q, kShortTile), keys = round_up(s.end_k, kShortTile);
  using Layout = TileLayout<kColumns>;
  const uint32_t k_tile = shared_address(shared);
  const uint32_t v_tile = k_tile + Layout::bytes(keys), q_tile = v_tile + Layout::bytes(keys);
  const uint32_t do_tile = q_tile + Layout::bytes(rows), ds_tiles = do_tile + Layout::bytes(rows);
  const uint32_t ds_bytes = static_cast<uint32_t>(KeyBlockLayout::bytes(keys));  // of one row tile
  auto* const terms = reinterpret_cast<RowTerms*>(shared + (ds_tiles - k_tile) + 2 * row_tiles * ds_bytes);

  const auto copy = [&](uint32_t tile, const void* data, int64_t stride, int end, int first, int last) {
    copy_rows_async<kColumns>(tile, {data, stride, 0, end, c.head_dim}, first, last, team);
  };
  copy(k_tile, s.k_rows<T>(c, c.k, w.head), c.k.row_stride, s.end_k, 0, keys);
  copy(v_tile, s.k_rows<T>(c, c.v, w.head), c.v.row_stride, s.end_k, 0, keys);
  if (s.end_k < s.num_k) zero_hidden_keys<T>(c, s, w.head, team);

  const bool dropped = kMasked && c.rng_state != nullptr;
  const float keep_scale = dropped ? dropout_scale(c.dropout_threshold) : 1.0f;
  constexpr int kTiles = resident_bwd_tiles(kColumns), kWarpKeys = 16 * kTiles;
  ResidentKeys<T, kColumns, kTiles, resident_bwd_keep(kColumns), kMasked> mine(c, see, warp * kWarpKeys, lane);
  const int stage_rows = row_tiles * kShortTile;
#pragma unroll 1
  for (int member = 0; member < c.group(); ++member) {
    const int head = w.head * c.group() + member;
    if (s.end_q < s.num_q) zero_hidden_queries<T>(c, s, head, team);
    if (member > 0) team.sync();  // all have read the last head's Q and dO
    const int first_part = min(stage_rows, rows);
    const auto copy_queries = [&](int first, int last) {
      copy(q_tile, s.q_rows<T>(c, c.q, head), c.q.row_stride, s.end_q, first, last);
      copy(do_tile, s.q_rows<T>(c, c.grad_out, head), c.grad_out.row_stride, s.end_q, first, last);
      cp_async_commit();
    };
    copy_queries(0, first_part);
    copy_queries(first_part, rows);
    compute_row_terms<T>(c, s, head, terms, rows);
    const Dropout dropout = dropped ? Dropout(c, s.index, head) : Dropout();
    cp_async_wait<1>();
    team.sync();
    if (member == 0 && warp * kWarpKeys < s.end_k) mine.load(k_tile, v_tile);

    uint32_t ds_stage = ds_tiles;
#pragma unroll 1
    for (int stage = 0; stage < rows; stage += stage_rows) {
      const int stage_end = min(stage + stage_rows, rows);
#pragma unroll 1
      for (int first = stage; first < stage_end; first += kShortTile) {
        if (!mine.sees_any(see.keys_of_rows(first, first + kShortTile))) continue;
        mine.add_rows(first, q_tile, do_tile, ds_stage + (first - stage) / kShortTile * ds_bytes, terms,
                      dropped ? &dropout : nullptr, keep_scale);
      }
      cp_async_wait<0>();
      team.sync();
      constexpr int kPieces = kColumns / 16;
      const int pieces = (stage_end - stage) / kShortTile * kPieces;
      for (int piece = warp; piece < pieces; piece += warps) {
        const int tile = piece / kPieces, first = stage + tile * kShortTile;
        const Range visible = see.keys_of_rows(first, first + kShortTile);
        write_grad_q<T, kColumns, kMasked>(c, s, see, head, first, piece % kPieces * 16, ds_stage + tile * ds_bytes,
                                           k_tile, visible.begin / kShortTile,
                                           visible.empty() ? 0 : round_up(visible.end, kShortTile) / kShortTile, lane);
      }
      ds_stage = ds_stage == ds_tiles ? ds_tiles + row_tiles * ds_bytes : ds_tiles;
    }
  }
  if (warp * kWarpKeys < s.end_k) mine.store(c, s, w.head, keep_scale);
}

}  // namespace strobe::cuda::sm80
