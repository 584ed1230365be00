// Backward of one head in one block and one launch. Each warp owns
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

__device__ constexpr Keep resident_bwd_keep(int columns) {
#if __CUDA_ARCH__ >= 900
  if (columns == 64) return Keep::kK;
#endif
  return columns == 32 ? Keep::kKAndV : Keep::kNone;  // for sm_80, ptxas needs a few registers more
}

/// Of one row, for the loop: base of the exponent, and delta - dLSE.
struct RowTerms {
  float base, delta;
};

/// Makes the terms of all rows, four lanes a row. O is asked for before the wait for the tiles, up to kBatch rows a
/// lane, dO is read from its tile.
template <class T, int kColumns, int kBatch>
class RowTermMaker {
  static constexpr int kLaneChunks = (kColumns / kChunkElements + 3) / 4;

 public:
  __device__ RowTermMaker(const BwdCall& c, const Sequence& s, int head)
      : c_(c),
        end_(s.end_q),
        out_(s.q_rows<T>(c, c.out, head)),
        lse_(c.softmax_lse + s.lse_offset(c, head)),
        lse_gradient_(c.grad_softmax_lse == nullptr ? nullptr : c.grad_softmax_lse + s.lse_offset(c, head)) {
    load(static_cast<int>(threadIdx.x) / 4);
  }

  __device__ void write(RowTerms* terms, uint32_t do_tile, int rows) {
    for (int row = static_cast<int>(threadIdx.x) / 4; row < rows; row += kBatch * step()) {
      if (row >= kBatch * step()) load(row);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = row + i * step();
        if (at >= rows) break;  // for the whole warp: rows and a warp's rows are multiples of 8
        const float delta = quad_sum(product(i, do_tile, at));
        if (threadIdx.x % 4 == 0) {
          terms[at] = at < end_ ? RowTerms{exponent_base(row_lse_[i]), delta - row_lse_gradient_[i]}
                                : RowTerms{kInfinity, 0.0f};
        }
      }
    }
  }

 private:
  __device__ static int step() { return static_cast<int>(blockDim.x) / 4; }
  __device__ static int chunk(int j) { return static_cast<int>(threadIdx.x) % 4 + 4 * j; }

  __device__ void load(int row) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = row + i * step();
#pragma unroll
      for (int j = 0; j < kLaneChunks; ++j) {
        const bool valid = at < end_ && chunk(j) * kChunkElements < c_.head_dim;
        row_out_[i][j] = valid ? __ldg(reinterpret_cast<const uint4*>(out_ + at * c_.out.row_stride) + chunk(j))
                               : make_uint4(0, 0, 0, 0);
      }
      row_lse_[i] = at < end_ ? __ldg(lse_ + at) : 0.0f;
      row_lse_gradient_[i] = at < end_ && lse_gradient_ != nullptr ? __ldg(lse_gradient_ + at) : 0.0f;
    }
  }

  __device__ float product(int i, uint32_t do_tile, int row) const {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kLaneChunks; ++j) {
      if (chunk(j) >= TileLayout<kColumns>::kChunks) break;
      uint32_t g[4];
      load_shared_128(g, do_tile + TileLayout<kColumns>::offset(row, chunk(j)));
      const uint32_t o[4] = {row_out_[i][j].x, row_out_[i][j].y, row_out_[i][j].z, row_out_[i][j].w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float2 x = Element<T>::unpack(o[w]), y = Element<T>::unpack(g[w]);
        sum += x.x * y.x + x.y * y.y;
      }
    }
    return sum;
  }

  const BwdCall& c_;
  int end_;
  const T* out_;
  const float *lse_, *lse_gradient_;
  uint4 row_out_[kBatch][kLaneChunks];
  float row_lse_[kBatch], row_lse_gradient_[kBatch];
};

/// kTiles x 16 keys of one key/value head.
template <class T, int kColumns, int kTiles, Keep kKeep, bool kMasked>
class ResidentKeys {
  using AReader = FragmentReader<kColumns, Fragment::kA>;
  using BReader = FragmentReader<kColumns, Fragment::kB>;
  using BTransReader = FragmentReader<kColumns, Fragment::kBTrans>;
  static constexpr int kSteps = kColumns / 16;
  using Products = float[kTiles][2][4];  // of S^T or dP^T: keys by 16 rows

 public:
  /// `ds_key`: where the first key stands in the tiles of dS.
  __device__ ResidentKeys(const BwdCall& c, const Visibility& see, int first_key, int ds_key, int lane)
      : see_(see),
        first_key_(first_key),
        ds_key_(ds_key),
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
                           const Dropout& dropout, bool dropped, float keep_scale) {
    const bool partial =
        kMasked && limited_ && !all_see(see_, first, first + kShortTile, first_key_, first_key_ + 16 * kTiles);
    const bool edge = partial || first_key_ + 16 * kTiles > see_.end_k;
    Products p = {}, ds = {};
    multiply(p, ds, q_tile, do_tile, first);
    float base[2][2], delta[2][2];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const auto both = *reinterpret_cast<const float4*>(terms + first + 8 * t + accumulator_column(lane_));
      base[t][0] = both.x, base[t][1] = both.z;
      delta[t][0] = both.y, delta[t][1] = both.w;
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint32_t kept = kMasked && dropped ? kept_of(dropout, first, i) : 0xFFu;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float x = exp2_approx(p[i][t][e] * log2_scale_ - base[t][e % 2]);
          const bool stays = !kMasked || (kept >> (4 * t + e) & 1) != 0;
          const float gradient = !kMasked ? ds[i][t][e] : stays ? ds[i][t][e] * keep_scale : 0.0f;
          ds[i][t][e] = x * (gradient - delta[t][e % 2]);
          p[i][t][e] = stays ? x : 0.0f;
        }
      }
    }
    if (edge) {  // select, whatever the products with hidden rows are
      mask(p, first);
      mask(ds, first);
    }
    uint32_t p_fragments[kTiles][4], ds_fragments[kTiles][4];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      accumulators_to_a<T>(p_fragments[i], p[i][0], p[i][1]);
      accumulators_to_a<T>(ds_fragments[i], ds[i][0], ds[i][1]);
      store_ds(ds_fragments[i], i, ds_tile);
    }
    add_products(p_fragments, ds_fragments, q_tile, do_tile, first, partial);
  }

  __device__ const float (&grad_k() const)[kColumns / 8][4] { return dk_[0]; }
  __device__ const float (&grad_v() const)[kColumns / 8][4] { return dv_[0]; }

  /// `grad_k`, `grad_v`: row 0 of the head.
  __device__ void store(const BwdCall& c, T* grad_k, T* grad_v, float keep_scale) const {
    write(grad_k, c.grad_k.row_stride, c.head_dim, dk_, c.softmax_scale);
    write(grad_v, c.grad_v.row_stride, c.head_dim, dv_, keep_scale);
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

  /// S^T and dP^T of 16 rows, both at once: twice as many products that do not wait for each other.
  __device__ void multiply(Products& p, Products& dp, uint32_t q_tile, uint32_t do_tile, int first) const {
    const AReader k_reader(k_tile_, lane_, first_key_), v_reader(v_tile_, lane_, first_key_);
    const BReader q_reader(q_tile, lane_), do_reader(do_tile, lane_);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t q[4], g[4];
      q_reader.load(q, first, 16 * k);
      do_reader.load(g, first, 16 * k);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t a[4];
        fragment<kKeep != Keep::kNone>(a, k_[i][k], k_reader, i, k);
        Element<T>::mma_m16n8k16(p[i][0], a, q[0], q[1]);
        Element<T>::mma_m16n8k16(p[i][1], a, q[2], q[3]);
        fragment<kKeep == Keep::kKAndV>(a, v_[i][k], v_reader, i, k);
        Element<T>::mma_m16n8k16(dp[i][0], a, g[0], g[1]);
        Element<T>::mma_m16n8k16(dp[i][1], a, g[2], g[3]);
      }
    }
  }

  template <bool kKept>
  __device__ void fragment(uint32_t (&a)[4], const uint32_t (&kept)[4], const AReader& reader, int tile, int k) const {
    if constexpr (kKept) {
#pragma unroll
      for (int w = 0; w < 4; ++w) a[w] = kept[w];
    } else {
      reader.load(a, 16 * tile, 16 * k);
    }
  }

  __device__ void store_ds(const uint32_t (&fragment)[4], int tile, uint32_t ds_tile) const {
    if (first_key_ + 16 * tile >= see_.end_k) return;  // beyond the tile in memory
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int key = ds_key_ + 16 * tile + accumulator_row(lane_) + w % 2 * 8;
      const uint32_t address = ds_tile + KeyBlockLayout::offset(key, w / 2) + accumulator_column(lane_) * 2;
      store_shared_32(address, fragment[w]);
    }
  }

  __device__ uint32_t kept_of(const Dropout& dropout, int first, int tile) const {
    const int key = first_key_ + 16 * tile;
    const uint32_t kept =
        dropout.kept_of_transpose(first + accumulator_column(lane_), key / 32 * 32 + accumulator_row(lane_));
    return kept >> (key / 16 % 2 * 8);
  }

  __device__ bool sees(int row, int key) const {
    const Range keys = keys_of_row<kMasked>(see_, row);
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

  /// dV[key][d] += P[key][row] dO[row][d], dK[key][d] += dS[key][row] Q[row][d].
  __device__ void add_products(const uint32_t (&p)[kTiles][4], const uint32_t (&ds)[kTiles][4], uint32_t q_tile,
                               uint32_t do_tile, int first, bool partial) {
    const BTransReader q_reader(q_tile, lane_), do_reader(do_tile, lane_);
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t g[4], q[4];
      do_reader.load(g, first, 16 * d);
      q_reader.load(q, first, 16 * d);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const auto seen = [&](int m, int k) { return sees(first + k, first_key_ + 16 * i + m); };
        multiply_add<T, kMasked>(dv_[i][2 * d], dv_[i][2 * d + 1], p[i], g, partial, seen, lane_);
        multiply_add<T, kMasked>(dk_[i][2 * d], dk_[i][2 * d + 1], ds[i], q, partial, seen, lane_);
      }
    }
  }

  __device__ void write(T* data, int64_t row_stride, int head_dim, const float (&out)[kTiles][kColumns / 8][4],
                        float factor) const {
    const float factors[2] = {factor, factor};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      T* row[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int key = first_key_ + 16 * i + accumulator_row(lane_) + 8 * r;
        row[r] = key < see_.end_k ? data + key * row_stride : nullptr;
      }
      store_rows<T>(out[i], factors, row, head_dim, lane_);
    }
  }

  const Visibility& see_;
  int first_key_, ds_key_, lane_;
  float log2_scale_;
  bool limited_;
  uint32_t k_tile_, v_tile_;
  uint32_t k_[kTiles][kSteps][4], v_[kTiles][kSteps][4];
  float dk_[kTiles][kColumns / 8][4] = {}, dv_[kTiles][kColumns / 8][4] = {};
};

/// What the blocks's tiles are, in shared memory.
template <int kColumns>
struct ResidentTiles {
  using Layout = TileLayout<kColumns>;
  int owned_keys;  // a multiple of 16; those of the tail come after
  uint32_t k, v, q, grad_out;
  uint32_t ds, ds_bytes;    // buffers of dS, [owned key][row] tiles of 16 rows, so large each
  uint32_t tail_ds, terms;  // dS of the tail, all rows; RowTerms

  /// Depends on the call alone: the compiler keeps it in uniform registers.
  __device__ ResidentTiles(uint32_t shared, const Call& c) {
    const int rows = round_up(c.seqlen_q, kShortTile), keys = round_up(c.seqlen_k, kShortTile);
    owned_keys = resident_bwd_has_tail(kColumns) ? min(keys, resident_bwd_owned_keys(kColumns)) : keys;
    k = shared;
    v = k + Layout::bytes(keys);
    q = v + Layout::bytes(keys);
    grad_out = q + Layout::bytes(rows);
    tail_ds = grad_out + Layout::bytes(rows);
    terms = tail_ds + static_cast<uint32_t>(rows * (keys - owned_keys) * 2);
    ds = terms + static_cast<uint32_t>(rows * sizeof(RowTerms));
    ds_bytes = static_cast<uint32_t>(KeyBlockLayout::bytes(owned_keys));
  }
  __device__ bool has_tail(const Visibility& see) const {
    return resident_bwd_has_tail(kColumns) && owned_keys < see.end_k;
  }
  __device__ uint32_t tail_ds_of(int row) const { return tail_ds + row * (kShortTile * 2); }
};

/// dQ of rows [first, first + 16), half of the columns: dS K over the keys that the rows see.
template <class T, int kColumns, bool kMasked>
class GradQPiece {
  static constexpr int kBlocks = (kColumns / 16 + 1) / 2;  // of 16 columns; the second half may have one less
  static constexpr int kUnroll = kBlocks > 2 ? 1 : 4;      // as registers allow

 public:
  __device__ GradQPiece(const BwdCall& c, const Visibility& see, int first, int half, int lane)
      : c_(c), see_(see), first_(first), begin_(half * kBlocks), lane_(lane) {}

  __device__ void add(const ResidentTiles<kColumns>& tiles, uint32_t ds_tile) {
    const Range keys = keys_of_tile<kMasked>(see_, first_);
    if (keys.empty()) return;
    const FragmentReader<16, Fragment::kATrans> ds_reader(ds_tile, lane_);
    const FragmentReader<kColumns, Fragment::kBTrans> k_reader(tiles.k, lane_);
    const int owned_end = min(keys.end, tiles.owned_keys);
#pragma unroll kUnroll
    for (int key = keys.begin / kShortTile * kShortTile; key < owned_end; key += kShortTile) {
      add_keys(ds_reader, key, k_reader, key);
    }
    if (tiles.has_tail(see_) && keys.end > tiles.owned_keys) {
      const FragmentReader<16, Fragment::kATrans> tail_reader(tiles.tail_ds_of(first_), lane_);
      add_keys(tail_reader, 0, k_reader, tiles.owned_keys);
    }
  }

  /// `data`: row 0 of the head.
  __device__ void store(T* data) const {
    T* row[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = first_ + accumulator_row(lane_) + 8 * r;
      row[r] = i < see_.end_q ? data + i * c_.grad_q.row_stride + 16 * begin_ : nullptr;
    }
    const float factor[2] = {c_.softmax_scale, c_.softmax_scale};
    store_rows<T>(dq_, factor, row, c_.head_dim - 16 * begin_, lane_);
  }

 private:
  __device__ void add_keys(const FragmentReader<16, Fragment::kATrans>& ds_reader, int ds_key,
                           const FragmentReader<kColumns, Fragment::kBTrans>& k_reader, int key) {
    const bool limited = c_.window_left < kUnlimited || c_.window_right < kUnlimited;
    const bool partial = kMasked && limited && !all_see(see_, first_, first_ + kShortTile, key, key + kShortTile);
    const auto sees = [&](int m, int k) {
      const Range keys = see_.keys_of(first_ + m);
      return key + k >= keys.begin && key + k < keys.end;
    };
    uint32_t a[4];
    ds_reader.load(a, ds_key, 0);
#pragma unroll
    for (int d = 0; d < kBlocks; ++d) {
      uint32_t b[4];
      if (begin_ + d >= kColumns / 16) break;
      k_reader.load(b, key, 16 * (begin_ + d));
      multiply_add<T, kMasked>(dq_[2 * d], dq_[2 * d + 1], a, b, partial, sees, lane_);
    }
  }

  const BwdCall& c_;
  const Visibility& see_;
  int first_, begin_, lane_;
  float dq_[2 * kBlocks][4] = {};
};

/// dK and dV of the tail's keys: each warp has every so many row tiles; then the warps' sums are added in the order of
/// the warps, half of the columns at a time.
template <class T, int kColumns, bool kMasked>
class TailKeys {
 public:
  using Keys = ResidentKeys<T, kColumns, 1, Keep::kNone, kMasked>;

  __device__ static void run(const BwdCall& c, const Sequence& s, const Visibility& see, int head,
                             const ResidentTiles<kColumns>& tiles, const RowTerms* terms, const Dropout& dropout,
                             bool dropped, float keep_scale, float* sums, const Team& team) {
    const int lane = team.thread % 32, warp = team.thread / 32, warps = team.threads / 32;
    Keys keys(c, see, tiles.owned_keys, 0, lane);
    keys.load(tiles.k, tiles.v);
    for (int first = warp * kShortTile; first < see.end_q; first += warps * kShortTile) {
      if (!keys.sees_any(keys_of_tile<kMasked>(see, first))) continue;
      keys.add_rows(first, tiles.q, tiles.grad_out, tiles.tail_ds_of(first), terms, dropout, dropped, keep_scale);
    }
    write(c, s, c.grad_v, head, keys.grad_v(), keep_scale, tiles.owned_keys, sums, team);
    write(c, s, c.grad_k, head, keys.grad_k(), c.softmax_scale, tiles.owned_keys, sums, team);
  }

 private:
  static constexpr int kHalf = kColumns / 16;  // n8 tiles

  __device__ static void write(const BwdCall& c, const Sequence& s, const Strided& gradient, int head,
                               const float (&out)[kColumns / 8][4], float factor, int first_key, float* sums,
                               const Team& team) {
    const int lane = team.thread % 32, warp = team.thread / 32, warps = team.threads / 32;
    T* const data = s.k_rows<T>(c, gradient, head);
    for (int half = 0; half < 2; ++half) {
      team.sync();
#pragma unroll
      for (int t = 0; t < kHalf; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[((warp * kHalf + t) * 4 + e) * 32 + lane] = half == 0 ? out[t][e] : out[kHalf + t][e];
        }
      }
      team.sync();
      for (int t = warp; t < kHalf; t += warps) {
        float sum[4] = {};
        for (int w = 0; w < warps; ++w) {
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[e] += sums[((w * kHalf + t) * 4 + e) * 32 + lane];
        }
        const int column = (half * kHalf + t) * 8;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int key = first_key + accumulator_row(lane) + 8 * r;
          if (key >= s.end_k || column >= c.head_dim) continue;
          *reinterpret_cast<uint32_t*>(data + key * gradient.row_stride + column + accumulator_column(lane)) =
              Element<T>::pack(sum[2 * r] * factor, sum[2 * r + 1] * factor);
        }
      }
    }
  }
};

/// Asks for what block `unit` will read.
__device__ inline void prefetch_backward(const BwdCall& c, uint32_t unit, const Team& team) {
  const Work w = work(c, unit, c.num_heads_q);
  const Sequence& s = w.sequence;
  const auto keys = [&](const Strided& t) {
    prefetch_rows({s.k_rows<__half>(c, t, w.head), t.row_stride, 0, s.end_k, c.head_dim}, team);
  };
  const auto queries = [&](const Strided& t) {
    prefetch_rows({s.q_rows<__half>(c, t, w.head), t.row_stride, 0, s.end_q, c.head_dim}, team);
  };
  keys(c.k);
  keys(c.v);
  queries(c.q);
  queries(c.grad_out);
  queries(c.out);
}

/// `ahead`: how many blocks run at the same time.
template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(kResidentBwdWarps * 32, 1)
    short_bwd_resident(const __grid_constant__ BwdCall c, ResidentBwdPlan plan, uint32_t ahead) {
  unsigned char* const shared = dynamic_shared_memory();
  const Work w = work(c, blockIdx.x, c.num_heads_q);
  const Sequence& s = w.sequence;
  const Visibility see(c, s);
  const Team team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), 0};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const uint32_t shared_begin = shared_address(shared);
  const ResidentTiles<kColumns> tiles(shared_begin + kHeaderBytes, c);
  const int rows = round_up(s.end_q, kShortTile), keys = round_up(s.end_k, kShortTile);
  auto* const terms = reinterpret_cast<RowTerms*>(shared + (tiles.terms - shared_begin));

  struct Rows {  // the head's, from 0; rather than in each lane's registers all the while
    T *grad_q, *grad_k, *grad_v;
  };
  static_assert(sizeof(Rows) <= kHeaderBytes);
  auto& rows_of_head = *reinterpret_cast<Rows*>(shared);
  if (threadIdx.x == 0) {
    rows_of_head = {s.q_rows<T>(c, c.grad_q, w.head), s.k_rows<T>(c, c.grad_k, w.head),
                    s.k_rows<T>(c, c.grad_v, w.head)};
  }
  const auto copy = [&](uint32_t tile, const void* data, int64_t stride, int end, int last) {
    copy_rows_async<kColumns>(tile, {data, stride, 0, end, c.head_dim}, 0, last, team);
  };
  copy(tiles.k, s.k_rows<T>(c, c.k, w.head), c.k.row_stride, s.end_k, keys);
  copy(tiles.v, s.k_rows<T>(c, c.v, w.head), c.v.row_stride, s.end_k, keys);
  if (s.end_k < s.num_k) zero_hidden_keys<T>(c, s, w.head, team);

  const bool dropped = kMasked && c.rng_state != nullptr;
  const float keep_scale = dropped ? dropout_scale(c.dropout_threshold) : 1.0f;
  copy(tiles.q, s.q_rows<T>(c, c.q, w.head), c.q.row_stride, s.end_q, rows);
  copy(tiles.grad_out, s.q_rows<T>(c, c.grad_out, w.head), c.grad_out.row_stride, s.end_q, rows);
  cp_async_commit();
  if (s.end_q < s.num_q) zero_hidden_queries<T>(c, s, w.head, team);
  {
    RowTermMaker<T, kColumns, 5> maker(c, s, w.head);
    if (blockIdx.x + ahead < gridDim.x) prefetch_backward(c, blockIdx.x + ahead, team);
    cp_async_wait<0>();
    team.sync();
    maker.write(terms, tiles.grad_out, rows);
  }
  team.sync();
  const Dropout dropout = dropped ? Dropout(c, s.index, w.head) : Dropout();
  if constexpr (resident_bwd_has_tail(kColumns)) {
    if (tiles.has_tail(see)) {
      auto* const sums = reinterpret_cast<float*>(shared + (tiles.ds - shared_begin));
      TailKeys<T, kColumns, kMasked>::run(c, s, see, w.head, tiles, terms, dropout, dropped, keep_scale, sums, team);
      team.sync();  // the sums are where dS will be
    }
  }

  constexpr int kTiles = resident_bwd_tiles(kColumns), kWarpKeys = 16 * kTiles;
  ResidentKeys<T, kColumns, kTiles, resident_bwd_keep(kColumns), kMasked> mine(c, see, warp * kWarpKeys,
                                                                               warp * kWarpKeys, lane);
  if (warp * kWarpKeys < s.end_k) mine.load(tiles.k, tiles.v);

  uint32_t ds = tiles.ds;
  const int stage_rows = plan.row_tiles * kShortTile;
#pragma unroll 1
  for (int stage = 0; stage < rows; stage += stage_rows) {
    const int stage_end = min(stage + stage_rows, rows);
#pragma unroll 1
    for (int first = stage; first < stage_end; first += kShortTile) {
      if (!mine.sees_any(keys_of_tile<kMasked>(see, first))) continue;
      mine.add_rows(first, tiles.q, tiles.grad_out, ds + (first - stage) / kShortTile * tiles.ds_bytes, terms, dropout,
                    dropped, keep_scale);
    }
    team.sync();
#pragma unroll 1
    for (int piece = warp; piece < (stage_end - stage) / kShortTile * 2; piece += warps) {
      GradQPiece<T, kColumns, kMasked> dq(c, see, stage + piece / 2 * kShortTile, piece % 2, lane);
      dq.add(tiles, ds + piece / 2 * tiles.ds_bytes);
      dq.store(rows_of_head.grad_q);
    }
    if (plan.buffers == 1) {
      team.sync();
    } else {
      ds = ds == tiles.ds ? tiles.ds + plan.row_tiles * tiles.ds_bytes : tiles.ds;
    }
  }
  if (warp * kWarpKeys < s.end_k) mine.store(c, rows_of_head.grad_k, rows_of_head.grad_v, keep_scale);
}

}  // namespace strobe::cuda::sm80
