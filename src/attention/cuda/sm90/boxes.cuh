// Boxes of tensors in global memory, to shared memory and back by sm_90's copy engine, and the barriers that count
// them. What threads write to shared memory is there for it behind wgmma_fence_shared() and a barrier. PTX ISA 9.0,
// "Data Movement".
#pragma once

#include "src/attention/cuda/common/ptx.cuh"
#include "src/attention/cuda/sm90/tensor_map.h"

namespace strobe::cuda {

/// The address, which from here on is a register: what is at a constant distance is addressed from it.
__device__ inline uint32_t held_address(uint32_t address) {
  asm volatile("" : "+r"(address));
  return address;
}

/// After mbarrier_init, so that copies may arrive at the barriers.
__device__ inline void publish_mbarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Arrives where the lane is `chosen`; no branch.
__device__ inline void mbarrier_arrive_if(bool chosen, uint32_t barrier) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 state; setp.ne.u32 p, %0, 0; @p mbarrier.arrive.shared.b64 state, [%1]; }" ::"r"(
          static_cast<uint32_t>(chosen)),
      "r"(barrier)
      : "memory");
}

/// Arrives, and the phase does not end before `bytes` more have been copied.
__device__ inline void mbarrier_arrive_and_expect(uint32_t barrier, int bytes) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(barrier), "r"(bytes)
               : "memory");
}

/// Copies the map's box at these coordinates to shared memory; `barrier` counts its bytes. What lies outside of the
/// tensor becomes zeros.
__device__ inline void copy_box(uint32_t to, const TensorMap& map, uint32_t barrier, int column, int row, int head,
                                int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(column), "r"(row), "r"(head), "r"(batch)
      : "memory");
}

/// The other way round: what lies outside of the tensor is not written.
__device__ inline void store_box(const TensorMap& map, uint32_t from, int column, int row, int head, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
               "r"(from), "r"(column), "r"(row), "r"(head), "r"(batch)
               : "memory");
}
/// Waits until the boxes that this thread stores have been read from shared memory.
__device__ inline void wait_for_stored_boxes() {
  asm volatile("cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;" ::: "memory");
}

}  // namespace strobe::cuda
