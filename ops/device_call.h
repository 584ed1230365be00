// Between tensors and the kernel library: device, stream, errors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "strobe/types.h"

namespace strobe::ops {

inline Device library_device(const at::Tensor& t) { return t.is_cuda() ? Device::kCUDA : Device::kCPU; }

/// The device's current stream as the library takes it (cudaStream_t), null on the CPU.
inline void* current_stream(const at::Tensor& t) {
  if (t.is_cpu()) return nullptr;
  return c10::impl::VirtualGuardImpl(t.device().type()).getStream(t.device()).native_handle();
}

/// Runs `body`; the library's errors become c10 errors.
template <class Body>
void translate_errors(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    TORCH_CHECK(false, "strobe::attention: ", error.what());
  }
}

}  // namespace strobe::ops
