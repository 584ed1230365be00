// The rings of the short forward in shared memory, and the warps that fill them: with K and V of one head after the
// other, a chunk a slot, and with the rows of Q.
#pragma once

#include <cstddef>

#include "src/attention/cuda/sm80/short_tile.cuh"

namespace strobe::cuda::sm80 {

/// `units`: heads of sequences, of which a block has every so many; of each, how much the call's longest sequence has.
struct RingPlan {
  uint32_t units;
  int row_tiles, q_chunks, k_chunks;
  uint32_t copiers;  // warps that copy, of heads in turn
  uint32_t slots;    // of K and V
};

/// Where row 0 of a head goes.
template <class T>
struct alignas(16) FwdOut {
  T* out;
  float* lse;
};

/// What there is to know about a chunk of Q.
template <class T>
struct alignas(16) FwdChunk {
  FwdOut<T> to;
  int first_row, end_q, end_k, diagonal;
  int num_q, head;       // counted over the batch
  uint32_t slot, round;  // of the head's first chunk of K and V
  uint32_t number;       // of the chunk, counted over the block's heads; what is here is that chunk's when this is
};

/// A slot of a ring, and how often the ring has come round to it.
struct Slot {
  uint32_t index, round;
  __device__ void advance(uint32_t steps, uint32_t slots) {
    index += steps;
    if (index >= slots) index -= slots, ++round;
  }
};

/// Where the rings and their barriers stand in shared memory.
template <int kColumns>
class Rings {
  using Layout = TileLayout<kColumns>;
  static constexpr uint32_t kQSlots = fwd_q_slots(kColumns), kChunksAt = 384, kOutAt = 704;
  static_assert(8 + 16 * (kFwdMostSlots + kQSlots) <= kChunksAt);
  static_assert(kChunksAt + kQSlots * sizeof(FwdChunk<void>) <= kOutAt);
  static_assert(kOutAt + fwd_warps(kColumns, false) * sizeof(FwdOut<void>) <= kFwdHeaderBytes);

 public:
  __device__ Rings() : base_(shared_address(dynamic_shared_memory())) {}

  __device__ uint32_t next_tile() const { return base_; }
  __device__ uint32_t& num_tiles() const { return reinterpret_cast<uint32_t*>(dynamic_shared_memory())[1]; }
  __device__ uint32_t q_full(uint32_t slot) const { return base_ + 8 + 8 * slot; }
  __device__ uint32_t q_empty(uint32_t slot) const { return base_ + 8 + 8 * (kQSlots + slot); }
  __device__ uint32_t full(uint32_t slot) const { return base_ + 8 + 16 * kQSlots + 8 * slot; }
  __device__ uint32_t empty(uint32_t slot) const { return full(slot) + 8 * kFwdMostSlots; }
  template <class T>
  __device__ FwdChunk<T>& chunk(uint32_t q_slot) const {
    return reinterpret_cast<FwdChunk<T>*>(dynamic_shared_memory() + kChunksAt)[q_slot];
  }
  template <class T>
  __device__ FwdOut<T>& out(uint32_t warp) const {
    return reinterpret_cast<FwdOut<T>*>(dynamic_shared_memory() + kOutAt)[warp];
  }
  __device__ uint32_t chunk_number(uint32_t q_slot) const {
    return base_ + kChunksAt + q_slot * static_cast<uint32_t>(sizeof(FwdChunk<void>)) +
           static_cast<uint32_t>(offsetof(FwdChunk<void>, number));
  }
  __device__ uint32_t q_tile(uint32_t slot) const {
    return base_ + kFwdHeaderBytes + slot * static_cast<uint32_t>(fwd_q_slot_bytes(kColumns));
  }
  __device__ uint32_t k_tile(uint32_t slot) const {
    return q_tile(kQSlots) + slot * static_cast<uint32_t>(fwd_slot_bytes(kColumns));
  }
  __device__ uint32_t v_tile(uint32_t slot) const { return k_tile(slot) + Layout::bytes(kFwdChunk); }

 private:
  uint32_t base_;
};

/// Copies rows of one tensor to tiles, 16 at a time: what a lane has of 16 rows is the same for all of them.
template <class T, int kColumns>
class RowCopier {
  using Layout = TileLayout<kColumns>;
  static constexpr int kCopies = kShortTile * Layout::kChunks / 32;

 public:
  __device__ RowCopier(int64_t row_stride, int head_dim, int lane) : step_(kShortTile * row_stride) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = (lane + 32 * i) / Layout::kChunks, chunk = (lane + 32 * i) % Layout::kChunks;
      row_[i] = chunk * kChunkElements < head_dim ? row : kUnlimited;
      from_[i] = row * row_stride + chunk * kChunkElements;
      to_[i] = Layout::offset(row, chunk);
    }
  }

  /// `data`: the first row. Rows from `valid` on become zeros; `count` is rounded up to 16.
  __device__ void operator()(uint32_t tile, const T* data, int valid, int count) const {
#pragma unroll 1
    for (; count > 0; count -= kShortTile) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) cp_async_16(tile + to_[i], data + from_[i], row_[i] < valid);
      tile += Layout::bytes(kShortTile);
      data += step_;
      valid -= kShortTile;
    }
  }

 private:
  int64_t step_, from_[kCopies];
  uint32_t to_[kCopies];
  int row_[kCopies];
};

/// A copying warp: number `part` of plan.copiers. What it copies lands in the order in which it copies; so when a chunk
/// of Q is there, all that was in the slots of its head's K and V before has been.
template <class T, int kColumns, bool kMasked>
class FwdCopier {
  static constexpr uint32_t kQSlots = fwd_q_slots(kColumns);

 public:
  /// `there`: how many of the block's first chunks of Q other warps copy.
  __device__ FwdCopier(const FwdCall& c, const RingPlan& plan, uint32_t part, int there, int lane)
      : c_(c),
        plan_(plan),
        copy_q_(c.q.row_stride, c.head_dim, lane),
        copy_k_(c.k.row_stride, c.head_dim, lane),
        copy_v_(c.v.row_stride, c.head_dim, lane),
        q_slot_{part, 0},
        slot_{part, 0},
        turn_(part),
        there_(there),
        lane_(lane) {}

  /// Of each head: K and V as far as there are slots beside those of the head before, then the first rows of Q, the
  /// rest of K and V, the rest of Q. So nothing waits for a slot that is only freed by rows whose K, V or Q come later.
  /// The first head begins with Q, or, where the computing warps copy that, with 64 keys.
  __device__ void run() {
    const uint32_t heads = static_cast<uint32_t>(c_.num_heads_q), group = static_cast<uint32_t>(c_.group());
    const uint32_t step = plan_.copiers * gridDim.x, next_head = step % heads, next_sequence = step / heads;
    const int q_early = min(plan_.q_chunks, static_cast<int>(kQSlots));
    int k_early = there_ > 0;
    uint32_t unit = blockIdx.x + turn_ * gridDim.x, head = unit % heads, index = unit / heads;
#pragma unroll 1
    for (; unit < plan_.units; unit += step) {
      start_head(index < c_.batch ? sequence(c_, index) : spare_tokens(c_), static_cast<int>(head),
                 static_cast<int>(group == 1 ? head : head / group));
      const bool last = plan_.units - unit <= step;  // no head's K and V wait behind this one's Q
      int q_chunk = 0, k_chunk = 0;
#pragma unroll 1
      while (k_chunk < plan_.k_chunks || q_chunk < plan_.q_chunks) {
        const bool keys = k_chunk < k_early || (q_chunk >= q_early && k_chunk < plan_.k_chunks);
        if (keys && !(last && k_chunk > 0 && q_chunk < plan_.q_chunks && has_room_for_queries())) {
          copy_keys(k_chunk++);
        } else {
          copy_queries(q_chunk++);
        }
      }
      k_early = min(plan_.k_chunks, static_cast<int>(plan_.slots) - plan_.k_chunks);
      there_ = 0;
      turn_ += plan_.copiers;
      head += next_head;
      index += next_sequence;
      if (head >= heads) head -= heads, ++index;
    }
    cp_async_wait<0>();
  }

 private:
  __device__ bool has_room_for_queries() const {
    return mbarrier_has_ended(rings_.q_empty(q_slot_.index), ~q_slot_.round & 1);
  }

  /// What follows from the head is worked out once, not for each of its chunks.
  __device__ void start_head(const Sequence& s, int head, int head_k) {
    head_.to = {s.q_rows<T>(c_, c_.out, head), c_.softmax_lse + s.lse_offset(c_, head)};
    head_.end_q = s.end_q, head_.end_k = s.end_k, head_.diagonal = s.num_k - s.num_q;
    head_.num_q = s.num_q, head_.head = static_cast<int>(s.index * c_.num_heads_q) + head;
    head_.slot = slot_.index, head_.round = slot_.round;
    q_ = s.q_rows<T>(c_, c_.q, head), k_ = s.k_rows<T>(c_, c_.k, head_k), v_ = s.k_rows<T>(c_, c_.v, head_k);
  }

  __device__ void copy_queries(int chunk) {
    const int first = (kMasked ? plan_.q_chunks - 1 - chunk : chunk) * kFwdChunk;  // as in FwdWarp
    mbarrier_wait(rings_.q_empty(q_slot_.index), ~q_slot_.round & 1);
    if (lane_ == 0) {
      FwdChunk<T>& to = rings_.template chunk<T>(q_slot_.index);
      to.to = head_.to;
      to.first_row = first, to.end_q = head_.end_q, to.end_k = head_.end_k, to.diagonal = head_.diagonal;
      to.num_q = head_.num_q, to.head = head_.head, to.slot = head_.slot, to.round = head_.round;
      release_shared(rings_.chunk_number(q_slot_.index), turn_ * static_cast<uint32_t>(plan_.q_chunks) + chunk);
      mbarrier_arrive(rings_.q_full(q_slot_.index));
    }
    if (chunk >= there_) {
      const int rows = min(head_.end_q - first, kFwdChunk);
      copy_q_(rings_.q_tile(q_slot_.index), q_ + first * c_.q.row_stride, rows, rows);
    }
    mbarrier_arrive_after_copies(rings_.q_full(q_slot_.index));
    q_slot_.advance(plan_.copiers, kQSlots);
  }

  __device__ void copy_keys(int chunk) {
    constexpr int kRound = kMasked ? 2 * kShortTile : kShortTile;  // what FwdRows computes with
    const int first = chunk * kFwdChunk, valid = head_.end_k - first;
    const int count = min(round_up(head_.end_k, kRound) - first, kFwdChunk);
    mbarrier_wait(rings_.empty(slot_.index), ~slot_.round & 1);
    copy_k_(rings_.k_tile(slot_.index), k_ + first * c_.k.row_stride, valid, count);
    copy_v_(rings_.v_tile(slot_.index), v_ + first * c_.v.row_stride, valid, count);
    mbarrier_arrive_after_copies(rings_.full(slot_.index));
    slot_.advance(plan_.copiers, plan_.slots);
  }

  const FwdCall& c_;
  const RingPlan& plan_;
  RowCopier<T, kColumns> copy_q_, copy_k_, copy_v_;
  Rings<kColumns> rings_;
  Slot q_slot_, slot_;
  uint32_t turn_;  // the head's number of the block's
  int there_, lane_;
  FwdChunk<T> head_;  // but for what differs from chunk to chunk
  const T *q_, *k_, *v_;
};

}  // namespace strobe::cuda::sm80
