// The warps of the forward on wgmma that copy Q, K and V to shared memory, ahead of those that compute.
#pragma once

#include "src/attention/cuda/mma/fwd_rows.cuh"
#include "src/attention/cuda/sm90/wgmma_fwd_tile.cuh"

namespace strobe::cuda::sm90 {

template <class T, int kHeadDim, bool kDropout>
class FwdCopier {
  using Memory = FwdMemory<kHeadDim, kDropout>;
  static constexpr int kThreads = kWarpgroup, kKeys = Memory::kKeys;
  using KeyLayout = typename Memory::KeyLayout;

 public:
  __device__ FwdCopier(const FwdCall& call, unsigned char* shared, const Memory& memory)
      : call_(call), shared_(shared), memory_(memory) {}

  __device__ void set_head(int64_t, int head) { head_ = head; }
  __device__ void write_hidden(const Sequence&, int) const {}

  __device__ void compute(const Sequence& s, int first, const Range& keys) {
    memory_.queries.acquire(tile_);
    copy_tile_async<Memory::kRows, kHeadDim, kThreads, typename Memory::QueryLayout>(
        memory_.queries.buffer(tile_), query_source<T>(call_, s, head_), first, thread());
    memory_.queries.commit(tile_);
    const KeyBlocks<kKeys> blocks(Visibility(call_, s), keys, first, Memory::kRows);
    const RowSource k = key_source<T>(call_, call_.k, s, head_, keys),
                    v = key_source<T>(call_, call_.v, s, head_, keys);
#pragma unroll 1
    for (int i = 0; i <= blocks.count; ++i) {  // V a block behind K, as they are used
      if (i < blocks.count) {
        memory_.k.acquire(block_ + i);
        copy(memory_.k.buffer(block_ + i), k, blocks.key(i));
        memory_.k.commit(block_ + i);
      }
      if (i > 0) copy_values(block_ + i - 1, v, blocks.key(i - 1), limited(call_) && blocks.masked(i - 1));
    }
    ++tile_;
    block_ += blocks.count;
  }

  /// Behind the last tile.
  __device__ void finish() { finish_values<0>(); }

 private:
  static __device__ int thread() { return static_cast<int>(threadIdx.x) - 32 * Memory::kWarps; }

  static __device__ void copy(uint32_t tile, const RowSource& source, int first) {
    copy_tile_async<kKeys, kHeadDim, kThreads, KeyLayout>(tile, source, first, thread());
  }

  /// `examined`: V may hold infinities and NaN that only some of the rows see. They are looked for when the next block
  /// is on its way.
  __device__ void copy_values(int number, const RowSource& v, int key, bool examined) {
    memory_.v.acquire(number);
    copy(memory_.v.buffer(number), v, key);
    if (!examined) memory_.v.commit(number);
    cp_async_commit();
    finish_values<1>();
    if (!examined) return;
    examined_ = number;
    examined_tile_ = tile_;
  }

  /// kPending: of the groups of copies, how many are younger.
  template <int kPending>
  __device__ void finish_values() {
    if (examined_ < 0) return;
    cp_async_wait<kPending>();
    keep_finite(memory_.v.buffer(examined_));
    memory_.v.commit_landed(examined_);
    examined_ = -1;
  }

  /// Zeros instead of infinities and NaN in what this thread has copied of V, and a note that there were any.
  __device__ void keep_finite(uint32_t tile) const {
    unsigned char* const values = shared_ + (tile - shared_address(shared_));
    TileChunks<kKeys, kHeadDim, kThreads>::for_each(thread(), [&](int, int row, int chunk) {
      uint4& x = *reinterpret_cast<uint4*>(values + KeyLayout::offset(row, chunk));
      uint32_t sum = 0;  // of 0 * x: 0 or NaN
      sum = Element<T>::add_zero_times(sum, x.x);
      sum = Element<T>::add_zero_times(sum, x.y);
      sum = Element<T>::add_zero_times(sum, x.z);
      sum = Element<T>::add_zero_times(sum, x.w);
      if ((sum & 0x7FFF7FFFu) == 0) return;
      uint32_t words[4] = {x.x, x.y, x.z, x.w};
      strobe::cuda::keep_finite<T>(words);
      x = {words[0], words[1], words[2], words[3]};
      store_shared_32(memory_.nonfinite_of(examined_tile_), static_cast<uint32_t>(examined_tile_ + 1));
    });
  }

  const FwdCall& call_;
  unsigned char* shared_;
  const Memory& memory_;
  int head_ = 0;
  int tile_ = 0, block_ = 0;               // of queries, of keys: so many are copied
  int examined_ = -1, examined_tile_ = 0;  // the block of V that is to be examined, and for which tile
};

}  // namespace strobe::cuda::sm90
