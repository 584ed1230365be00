#include "ops/rng.h"

#include <ATen/ops/empty.h>

namespace strobe::ops {

at::Tensor draw_rng_state(const AttentionOptions& options, const at::Tensor& like) {
  const auto tensor_options = at::TensorOptions().dtype(at::kLong).device(like.device());
  if (options.dropout_p == 0) return at::empty({0}, tensor_options);
  if (options.rng_state) return options.rng_state->clone();
  return at::empty({2}, tensor_options).random_();
}

const uint64_t* rng_words(const at::Tensor& rng_state) {
  if (!rng_state.defined() || rng_state.numel() == 0) return nullptr;
  return reinterpret_cast<const uint64_t*>(rng_state.const_data_ptr<int64_t>());
}

}  // namespace strobe::ops
