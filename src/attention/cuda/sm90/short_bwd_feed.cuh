// The warps that do not multiply: one copies tensors to shared memory as slots come free, the others make what the
// loop needs of every row.
#pragma once

#include "src/attention/cuda/sm80/short_tile.cuh"
#include "src/attention/cuda/sm90/short_bwd_block.cuh"

namespace strobe::cuda::sm90 {

/// Copies K and V, then Q, dO and O, of one head after the other.
template <int kColumns>
class Copier {
  static constexpr int kSlotTiles = slot_tiles(kColumns), kSlotRows = slot_rows(kColumns);

 public:
  __device__ static void run(const Block& b) {
    const StreamMaps& maps = b.maps;
    const Barriers barriers = b.barriers();
    const int slots = (b.plan.row_tiles + kSlotTiles - 1) / kSlotTiles;
    const int box = b.plan.kv_rows > kMostBoxRows ? b.plan.kv_rows / 2 : b.plan.kv_rows;
    Slot q;
    uint32_t n = 0;
#pragma unroll 1
    for (uint32_t unit = blockIdx.x; unit < b.plan.units; unit += gridDim.x, ++n) {
      const Unit u(b.c, unit);
      const uint32_t i = n % 2;
      mbarrier_wait(barriers.kv_empty(i), ~(n / 2) & 1);
      if (b.lane == 0) {
        const uint32_t full = barriers.kv_full(i);
        mbarrier_arrive_and_expect(full, 2 * TileLayout<kColumns>::bytes(b.plan.kv_rows));
        for (int first = 0; first < b.plan.kv_rows; first += box) {
          copy(b.k_rows(i).from(first), maps.k, full, first, u);
          copy(b.k_rows(i).from(b.plan.kv_rows + first), maps.v, full, first, u);
        }
      }
      __syncwarp();
#pragma unroll 1
      for (int slot = 0; slot < slots; ++slot) {
        mbarrier_wait(barriers.q_empty(q.index), ~q.round & 1);
        if (b.lane == 0) {
          const uint32_t full = barriers.q_full(q.index);
          const Rows rows = b.q_rows<kColumns>(q.index);
          mbarrier_arrive_and_expect(full, 3 * TileLayout<kColumns>::bytes(kSlotRows));
          copy(rows, maps.q, full, slot * kSlotRows, u);
          copy(rows.from(kSlotRows), maps.grad_out, full, slot * kSlotRows, u);
          copy(rows.from(2 * kSlotRows), maps.out, full, slot * kSlotRows, u);
        }
        __syncwarp();
        q.advance(b.plan.q_slots);
      }
    }
  }

 private:
  __device__ static void copy(const Rows& to, const RowMaps& map, uint32_t barrier, int row, const Unit& u) {
    copy_box(to.wide, map.wide, barrier, 0, row, u.head, static_cast<int>(u.batch));
    if constexpr (kColumns > Rows::kWide) {
      copy_box(to.narrow, map.narrow, barrier, Rows::kWide, row, u.head, static_cast<int>(u.batch));
    }
  }
};

/// The terms of the rows in a slot as soon as it is full: 8 lanes a row. Warp `part` of `parts`.
template <class T, int kColumns>
class TermMaker {
  static constexpr int kSlotRows = slot_rows(kColumns);
  static constexpr int kRows = 4;                                          // of a warp at a time
  static constexpr int kMost = (kSlotRows + 2 * kRows - 1) / (2 * kRows);  // times, with at least two warps

 public:
  __device__ static void run(const Block& b, int part, int parts) {
    const Barriers barriers = b.barriers();
    const int first = part * kRows + b.lane / 8, step = parts * kRows;
    Slot q;
#pragma unroll 1
    for (uint32_t unit = blockIdx.x; unit < b.plan.units; unit += gridDim.x) {
      const Unit u(b.c, unit);
      const int64_t head = (u.batch * b.c.num_heads_q + u.head) * b.c.seqlen_q;
#pragma unroll 1
      for (int begin = 0; begin < b.plan.row_tiles * kTile; begin += kSlotRows) {
        RowTerms known[kMost];  // read before the slot is full
#pragma unroll
        for (int i = 0; i < kMost; ++i) known[i] = known_of(b.c, head, begin + first + i * step);
        mbarrier_wait(barriers.q_full(q.index), q.round % 2);
        const Rows rows = b.q_rows<kColumns>(q.index);
        RowTerms* const terms = b.terms<kColumns>(q.index);
#pragma unroll
        for (int i = 0; i < kMost; ++i) {
          const int row = first + i * step;
          const float sum = row < kSlotRows ? product(rows, row, b.lane % 8) : 0.0f;
          const float delta = row_sum(sum);
          if (row < kSlotRows && b.lane % 8 == 0) terms[row] = {known[i].base, known[i].minus_delta - delta};
        }
        __syncwarp();
        mbarrier_arrive_if(b.lane == 0, barriers.terms_full(q.index));
        q.advance(b.plan.q_slots);
      }
    }
  }

 private:
  __device__ static RowTerms known_of(const BwdCall& c, int64_t head, int row) {
    if (row >= c.seqlen_q) return {sm80::kInfinity, 0.0f};
    return {sm80::exponent_base(__ldg(c.softmax_lse + head + row)),
            c.grad_softmax_lse == nullptr ? 0.0f : __ldg(c.grad_softmax_lse + head + row)};
  }

  __device__ static float row_sum(float x) {
    x = quad_sum(x);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 4);
  }

  /// Of dO and O, the chunks of lane `part` of a row's 8.
  __device__ static float product(const Rows& q_rows, int row, int part) {
    using Wide = TileLayout<Rows::kWide>;
    using Narrow = TileLayout<Rows::kNarrow>;
    const uint32_t wide = q_rows.wide + Wide::bytes(kSlotRows) + Wide::offset(row, part);
    float sum = chunk_product(wide, wide + Wide::bytes(kSlotRows));
    if (kColumns > Rows::kWide && part < Narrow::kChunks) {
      const uint32_t narrow = q_rows.narrow + Narrow::bytes(kSlotRows) + Narrow::offset(row, part);
      sum += chunk_product(narrow, narrow + Narrow::bytes(kSlotRows));
    }
    return sum;
  }
  __device__ static float chunk_product(uint32_t left, uint32_t right) {
    uint32_t x[4], y[4];
    load_shared_128(x, left);
    load_shared_128(y, right);
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float2 a = Element<T>::unpack(x[w]), b = Element<T>::unpack(y[w]);
      sum += a.x * b.x + a.y * b.y;
    }
    return sum;
  }
};

}  // namespace strobe::cuda::sm90
