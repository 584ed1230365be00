#include "nn/init.h"

#include <ATen/ops/uniform.h>
#include <c10/core/GradMode.h>

#include <cmath>

namespace strobe::nn {

void xavier_uniform_(const at::Tensor& matrix) {
  const c10::NoGradGuard no_grad;
  const double bound = std::sqrt(6.0 / static_cast<double>(matrix.size(0) + matrix.size(1)));
  matrix.uniform_(-bound, bound);
}

}  // namespace strobe::nn
