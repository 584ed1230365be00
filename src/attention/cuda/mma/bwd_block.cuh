// A block of the backward's pass over keys, whatever its products are made with: it has one tile of keys of one
// key/value head and walks over the queries, of every query head of the group, that see them.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/mma/bwd_scratch.h"
#include "src/attention/cuda/mma/nonfinite.cuh"

namespace strobe::cuda {

/// Which gradients a pass over the keys produces.
enum class KvPass {
  kKeysValues,
  kKeysValuesQueries,         // dQ too, its parts added to fp32 sums in memory, in any order
  kKeysValuesQueriesInOrder,  // dQ too, by one block a head, tile by tile of the keys: always the same thread adds to
                              // an element, and what a thread adds to an address keeps its order
  kKeys,
  kValues,
};

/// Arch: how tiles are copied and how they stand in shared memory. Shape: kKeys, kRows, kThreads, kGroups of warps with
/// the same keys, kPlacesBegin in shared memory. Sums: where those of dQ stand in the
/// workspace.
template <class Arch, class T, int kHeadDim, class Shape, class Sums, KvPass kPass>
class BwdBlock {
 protected:
  static constexpr bool kWithKeys = kPass != KvPass::kValues, kWithValues = kPass != KvPass::kKeys;
  static constexpr int kKeys = Shape::kKeys, kRows = Shape::kRows, kGroups = Shape::kGroups,
                       kGroupKeys = kKeys / kGroups;
  using KeyLayout = typename Arch::template Layout<kHeadDim, kKeys>;
  static constexpr int kKeyBytes = kKeys * kHeadDim * 2;

  /// A tile of queries.
  struct Queries {
    int head, row;
  };
  /// What the loop over the queries asks again and again, in shared memory, since registers are few.
  struct Places {
    struct GroupRows {
      Range some, all;   // the rows that see any, every key of a group of warps
      bool keys_finite;  // only set where it matters
    };
    Sequence sequence;
    int head_k, first;         // the tile of keys
    int first_head, end_head;  // of the queries
    Range rows;                // that see the tile of keys, from the start of a tile of queries on
    Queries tiles[2];          // of the stages
    // Row 0 of the first of the heads, and the distance to the next in what is shaped like the LSE.
    const T *q, *grad_out;
    const RowStats* stats;
    float* grad_q;  // the sums of the first of the heads
    int64_t rows_per_head, sums_per_head;
    float dropout_scale;
    GroupRows groups[kGroups];
  };

 public:
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kSharedBytes = Shape::kPlacesBegin + static_cast<int>(sizeof(Places));

  /// One block a tile.
  static int64_t num_blocks(const BwdCall& call) { return int64_t{num_tiles(call)} * num_heads(call); }
  /// One block a head.
  static int64_t num_heads(const BwdCall& call) { return call.num_heads_k * (call.batch + (call.varlen() ? 1 : 0)); }

 protected:
  __device__ BwdBlock(const BwdCall& call, const BwdScratch& scratch, unsigned char* shared)
      : call_(call), scratch_(scratch), shared_(shared), shared_address_(shared_address(shared)) {}

  __device__ int thread() const { return thread_; }
  __device__ int lane() const { return thread() % 32; }
  __device__ int warp() const { return thread() / 32; }
  /// What follows from the thread's number is computed anew from here on: the registers that would keep it are rare.
  __device__ void forget() { thread_ = fresh_thread_index(); }

  // K and V stand at the beginning of shared memory; their tiles become staging for dK and dV.
  __device__ uint32_t k_tile() const { return shared_address_; }
  __device__ uint32_t v_tile() const { return shared_address_ + kKeyBytes; }
  __device__ Places& places() const { return *reinterpret_cast<Places*>(shared_ + Shape::kPlacesBegin); }

  static __host__ __device__ int num_tiles(const BwdCall& call) { return max(1, (call.seqlen_k + kKeys - 1) / kKeys); }

  /// Of a head of all sequences; behind the last of them are the spare tokens.
  __device__ Sequence sequence_of(int64_t head) const {
    const int64_t batch = head / call_.num_heads_k;
    return batch == call_.batch ? spare_tokens(call_) : sequence(call_, batch);
  }

  /// compute() for the tile of a block that some rows see, zeros for the others.
  template <class Compute>
  __device__ void run_block(int64_t index, const Compute& compute) {
    const int tiles = num_tiles(call_);
    const int first = static_cast<int>(index % tiles) * kKeys;  // under a causal mask the longest first
    const int64_t head = index / tiles;
    const Sequence s = sequence_of(head);
    const int head_k = static_cast<int>(head % call_.num_heads_k);
    if (s.index < call_.batch) {
      if (first < s.num_k) run_tile(s, head_k, first, compute);
      return;
    }
    for (int key = first; key < s.num_k; key += tiles * kKeys) write_zeros(s, head_k, key);
  }

  template <class Compute>
  __device__ void run_tile(const Sequence& s, int head_k, int first, const Compute& compute) {
    const Range rows = Visibility(call_, s).rows_of_keys(first, first + kKeys);
    if (rows.empty()) {
      write_zeros(s, head_k, first);
      return;
    }
    // From the start of a tile on: what the keys do not see there is hidden like any other pair.
    set_places(s, head_k, first, {rows.begin / kRows * kRows, rows.end});
    load_keys(s, head_k, first);
    compute();
  }

  __device__ void write_zeros(const Sequence& s, int head_k, int first) const {
    const int rows = min(kKeys, s.num_k - first), chunks = call_.head_dim / kChunkElements;
    const auto fill = [&](const Strided& t) {
      T* data = s.k_rows<T>(call_, t, head_k);
      for (int e = thread(); e < rows * chunks; e += kThreads) {
        T* row = data + static_cast<int64_t>(first + e / chunks) * t.row_stride;
        *reinterpret_cast<uint4*>(row + e % chunks * kChunkElements) = uint4{0, 0, 0, 0};
      }
    };
    if constexpr (kWithKeys) fill(call_.grad_k);
    if constexpr (kWithValues) fill(call_.grad_v);
  }

  __device__ void set_places(const Sequence& s, int head_k, int first, const Range& rows) const {
    const Visibility visibility(call_, s);
    if (thread() == 0) {
      Places& of = places();
      of.sequence = s;
      of.head_k = head_k;
      of.first = first;
      of.first_head = head_k * call_.group();
      of.end_head = of.first_head + call_.group();
      of.rows = rows;
      of.tiles[0] = {of.first_head, rows.begin};
      of.q = s.q_rows<T>(call_, call_.q, of.first_head);
      of.grad_out = s.q_rows<T>(call_, call_.grad_out, of.first_head);
      of.stats = scratch_.stats + s.lse_offset(call_, of.first_head);
      of.grad_q = scratch_.grad_q + Sums::begin(call_, s, of.first_head);
      of.dropout_scale = call_.rng_state != nullptr ? dropout_scale(call_.dropout_threshold) : 1.0f;
      of.rows_per_head = call_.varlen() ? call_.total_q : call_.seqlen_q;
      of.sums_per_head = Sums::per_head(call_);
    }
    if (thread() < kGroups) {
      const int key = first + thread() * kGroupKeys;
      const Range some = visibility.rows_of_keys(key, key + kGroupKeys);
      places().groups[thread()] = {some, some.empty() ? some : visibility.rows_of_all_keys(key, key + kGroupKeys),
                                   true};
    }
  }

  __device__ void load_keys(const Sequence& s, int head_k, int first) const {
    const Range keys = Visibility(call_, s).keys_of_rows(0, s.end_q);
    const RowSource k{s.k_rows<T>(call_, call_.k, head_k), call_.k.row_stride, keys.begin, keys.end, call_.head_dim};
    const RowSource v{s.k_rows<T>(call_, call_.v, head_k), call_.v.row_stride, keys.begin, keys.end, call_.head_dim};
    typename Arch::template TileCopy<kKeys, kHeadDim, kThreads> copy;
    copy.start(k_tile(), k, first, thread());
    copy.finish(thread());
    if constexpr (kWithKeys) {
      copy.start(v_tile(), v, first, thread());
      copy.finish(thread());
    }
  }

  /// Of a stage.
  struct QueryCopies {
    typename Arch::template TileCopy<kRows, kHeadDim, kThreads> q, grad_out;
    typename Arch::WordCopy stats;

    __device__ void finish(int thread) {
      q.finish(thread);
      grad_out.finish(thread);
      stats.finish();
    }
  };

  __device__ void load_queries(QueryCopies& copies, const Queries& tile, uint32_t q_tile, uint32_t grad_out_tile,
                               uint32_t stats_tile) const {
    const Places& of = places();
    const int head = tile.head - of.first_head;
    const auto start = [&](auto& copy, uint32_t to, const T* from, const Strided& t) {
      copy.start(to, {from + head * t.head_stride, t.row_stride, of.rows.begin, of.rows.end, call_.head_dim}, tile.row,
                 thread());
    };
    start(copies.q, q_tile, of.q, call_.q);
    start(copies.grad_out, grad_out_tile, of.grad_out, call_.grad_out);
    if (thread() < kRows) {
      const int i = tile.row + thread();
      const bool valid = i >= of.rows.begin && i < of.rows.end;
      const auto to = static_cast<uint32_t>(stats_tile + thread() * sizeof(RowStats));
      copies.stats.start(to, of.stats + head * of.rows_per_head + (valid ? i : 0), valid);
    }
  }

  /// Infinities and NaN in keys matter where a query does not see them: their products with zeros are NaN. Where there
  /// are none, the rows behind the last, which are zeros, may pass as rows that see them.
  __device__ bool keys_matter() const { return limited(call_) || places().rows.end % kRows != 0; }
  __device__ void set_keys_finite(int group, bool finite) const {
    typename Places::GroupRows& of = places().groups[group];
    of.keys_finite = finite;
    if (finite && of.all.end == places().sequence.end_q) of.all.end = kLongestSequence;
  }
  __device__ bool keys_finite() const {
    bool finite = true;
    for (int i = 0; i < kGroups; ++i) finite = finite && places().groups[i].keys_finite;
    return finite;
  }

  /// The tile of queries behind another: those of the group's heads, one after the other.
  __device__ Queries next(const Queries& tile) const {
    const Range rows = places().rows;
    return tile.row + kRows < rows.end ? Queries{tile.head, tile.row + kRows} : Queries{tile.head + 1, rows.begin};
  }

  /// Whether `count` rows see none of a group's keys, all of them, or some.
  enum class Sees { kNone, kSome, kAll };
  __device__ Sees sees(int group, int row, int count) const {
    const typename Places::GroupRows& rows = places().groups[group];
    if (row >= rows.some.end || row + count <= rows.some.begin) return Sees::kNone;
    return row >= rows.all.begin && row + count <= rows.all.end ? Sees::kAll : Sees::kSome;
  }

  /// Rounds a part of a gradient, the accumulators of a warp, through its place in a tile for stores of 16 bytes.
  template <int kKeyTiles, int kTiles>
  __device__ void write(const Strided& t, const float (&gradient)[kKeyTiles][kTiles][4], float scale, int tile_begin,
                        int first_key, int first_column) const {
    const Sequence& s = places().sequence;
    unsigned char* staging = shared_ + tile_begin;
    const int first_chunk = first_column / kChunkElements;
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = first_key + m * 16 + r * 8 + accumulator_row(lane());
          *reinterpret_cast<uint32_t*>(staging + KeyLayout::offset(row, first_chunk + n) + lane() % 4 * 4) =
              Element<T>::pack(gradient[m][n][2 * r] * scale, gradient[m][n][2 * r + 1] * scale);
        }
      }
    }
    __syncwarp();
    T* data = s.k_rows<T>(call_, t, places().head_k);
    for (int e = lane(); e < kKeyTiles * 16 * kTiles; e += 32) {
      const int row = first_key + e / kTiles, chunk = first_chunk + e % kTiles, j = places().first + row;
      if (j < s.num_k && chunk * kChunkElements < call_.head_dim) {
        // A hidden key's is 0 times the rows, among which there may be infinities and NaN.
        *reinterpret_cast<uint4*>(data + static_cast<int64_t>(j) * t.row_stride + chunk * kChunkElements) =
            j < s.end_k ? *reinterpret_cast<const uint4*>(staging + KeyLayout::offset(row, chunk)) : uint4{0, 0, 0, 0};
      }
    }
  }

  const BwdCall& call_;
  const BwdScratch& scratch_;
  unsigned char* shared_;
  uint32_t shared_address_;

 private:
  int thread_ = static_cast<int>(threadIdx.x);
};

}  // namespace strobe::cuda
