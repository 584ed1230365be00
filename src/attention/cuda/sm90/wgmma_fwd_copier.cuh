// The warps of the forward on wgmma that copy Q, K and V to shared memory, ahead of those that compute.
#pragma once

#include "src/attention/cuda/mma/fwd_rows.cuh"
#include "src/attention/cuda/sm90/wgmma_fwd_tile.cuh"

namespace strobe::cuda::sm90 {

template <class T, int kHeadDim, bool kDropout>
class FwdCopier {
  using Memory = FwdMemory<kHeadDim, kDropout>;
  static constexpr int kThreads = Memory::kCopyingThreads, kKeys = Memory::kKeys;
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
      if (i > 0) copy_values(block_ + i - 1, v, blocks.key(i - 1), blocks.masked(i - 1));
    }
    ++tile_;
    block_ += blocks.count;
  }

 private:
  static __device__ int thread() { return static_cast<int>(threadIdx.x) - 32 * Memory::kWarps; }

  static __device__ void copy(uint32_t tile, const RowSource& source, int first) {
    copy_tile_async<kKeys, kHeadDim, kThreads, KeyLayout>(tile, source, first, thread());
  }

  __device__ void copy_values(int number, const RowSource& v, int key, bool masked) const {
    memory_.v.acquire(number);
    copy(memory_.v.buffer(number), v, key);
    if (!masked || !limited(call_)) return memory_.v.commit(number);
    cp_async_commit();
    cp_async_wait<0>();
    keep_finite(memory_.v.buffer(number));
    memory_.v.commit_landed(number);
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
      store_shared_32(memory_.nonfinite_of(tile_), static_cast<uint32_t>(tile_ + 1));
    });
  }

  const FwdCall& call_;
  unsigned char* shared_;
  const Memory& memory_;
  int head_ = 0;
  int tile_ = 0, block_ = 0;  // of queries, of keys: so many are copied
};

}  // namespace strobe::cuda::sm90
