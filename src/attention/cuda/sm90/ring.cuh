// Tiles that some warps of a block copy to shared memory and others compute with, in the same order.
#pragma once

#include "src/attention/cuda/common/ptx.cuh"

namespace strobe::cuda::sm90 {

/// A ring of kStages buffers for tiles numbered from 0. kCopyingThreads fill them with cp.async, kWarps use them.
template <int kStages, int kBufferBytes, int kCopyingThreads, int kWarps>
class Ring {
 public:
  static constexpr int kBufferBytesOfAll = kStages * kBufferBytes, kBarrierBytes = 2 * kStages * 8;

  __device__ Ring(uint32_t buffers, uint32_t barriers) : buffers_(buffers), barriers_(barriers) {}

  /// By one thread, before a barrier of the block.
  __device__ void init() const {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(full(i), kCopyingThreads);
      mbarrier_init(free(i), kWarps);
    }
  }

  __device__ uint32_t buffer(int tile) const { return buffers_ + static_cast<uint32_t>(tile % kStages * kBufferBytes); }

  // A thread that copies:
  /// Waits until the buffer's tile before is not used any more.
  __device__ void acquire(int tile) const {
    if (tile >= kStages) mbarrier_wait(free(tile), parity(tile) ^ 1);
  }
  /// The tile is there when this thread's copies have landed.
  __device__ void commit(int tile) const { mbarrier_arrive_after_copies(full(tile)); }
  /// They have.
  __device__ void commit_landed(int tile) const { mbarrier_arrive(full(tile)); }

  // A warp that computes:
  /// Until the tile is there: behind wgmma_fence_shared() wgmma can read it.
  __device__ void wait(int tile) const { mbarrier_wait(full(tile), parity(tile)); }
  __device__ void release(int tile) const {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(free(tile));
  }

 private:
  __device__ uint32_t full(int tile) const { return barriers_ + static_cast<uint32_t>(tile % kStages * 8); }
  __device__ uint32_t free(int tile) const { return full(tile) + kStages * 8; }
  static __device__ uint32_t parity(int tile) { return static_cast<uint32_t>(tile / kStages % 2); }

  uint32_t buffers_, barriers_;
};

}  // namespace strobe::cuda::sm90
