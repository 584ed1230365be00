// What the loop asks of a device beyond tensors: generators, memory, determinism. The same code for every device type.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>

#include "train/value.h"

namespace strobe::train {

/// Seeds the CPU's generator and, where `device` is another, all generators of its type.
void seed_generators(at::Device device, uint64_t seed);

/// The states of the generators that a run on `device` draws from; restored by set_random_state.
Dict random_state(at::Device device);
void set_random_state(at::Device device, const Dict& state);

/// Asks ATen for deterministic kernels; operators without one then throw.
void require_determinism(at::Device device);

/// Lets cuDNN choose the algorithm of each shape of convolution by measuring it, the first time that it occurs. Two
/// runs may choose differently, so not together with require_determinism.
void tune_convolutions();

void synchronize(at::Device device);

/// Bytes: the largest resident set of the process so far on the CPU, else the most that tensors have taken since the
/// last reset.
int64_t peak_memory(at::Device device);
void reset_peak_memory(at::Device device);

/// Whether an exception says that memory ran out, on the CPU or on a device; and gives what the allocator caches back.
bool is_out_of_memory(const std::exception& error);
void release_cached_memory(at::Device device);

}  // namespace strobe::train
