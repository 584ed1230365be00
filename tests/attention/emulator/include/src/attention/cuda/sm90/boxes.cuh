// What src/attention/cuda/sm90/boxes.cuh offers, for the emulated device. A copy of a box lands at once, and its
// barrier counts it.
#pragma once

#include "src/attention/cuda/common/ptx.cuh"
#include "src/attention/cuda/sm90/tensor_map.h"

namespace strobe::cuda {

inline uint32_t held_address(uint32_t address) { return address; }
inline void publish_mbarriers() {}

inline void mbarrier_arrive_if(bool chosen, uint32_t barrier) {
  if (chosen) mbarrier_arrive(barrier);
}
void mbarrier_arrive_and_expect(uint32_t barrier, int bytes);
/// So many bytes have come.
void mbarrier_count(uint32_t barrier, int bytes);
void copy_box(uint32_t to, const TensorMap& map, uint32_t barrier, int column, int row, int head, int batch);

/// Reads shared memory when the thread waits for it.
void store_box(const TensorMap& map, uint32_t from, int column, int row, int head, int batch);
void wait_for_stored_boxes();

}  // namespace strobe::cuda
