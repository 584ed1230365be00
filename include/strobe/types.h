// The few types that every part of the kernel library's interface shares.
#pragma once

#include <stdexcept>
#include <string>

namespace strobe {

enum class Device { kCPU, kCUDA };
enum class DType { kFloat32, kFloat16, kBFloat16 };

/// What the library throws. The text names the operation, the argument, what was expected and what was found.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace strobe
