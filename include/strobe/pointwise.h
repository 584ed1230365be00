// What stands between the matrix products of a Transformer's training step, one pass over memory each, on CUDA: layer
// normalisation (Ba et al. 2016, arXiv 1607.06450) together with the bias, dropout and residual sum before it, and
// activations together with the bias before them. Backward passes give the gradients of the parameters in the same
// pass.
//
// Activations are row-major [rows, width] matrices of float16 or bfloat16, 16-byte aligned; parameters, statistics and
// parameters' gradients are float32. All arithmetic is float32. Nothing is allocated, nothing waits for the device;
// results depend neither on the device nor on the run. Null pointers only where said so. Functions throw strobe::Error.
#pragma once

#include <array>
#include <cstdint>

#include "strobe/dropout.h"
#include "strobe/types.h"

namespace strobe {

struct PointwiseCall {
  DType dtype = DType::kFloat16;  // of the activations; not kFloat32
  int64_t rows = 0;
  int64_t width = 0;       // a multiple of kPointwiseVector
  void* stream = nullptr;  // cudaStream_t
};

constexpr int64_t kPointwiseVector = 8;  // elements that one thread loads at once
constexpr int64_t kLayerNormMaxWidth = 2048;

/// What decides about dropout of the elements 8 * vector to 8 * vector + 7 of a row: element i stays iff 16-bit word i
/// of this (word 0 is the low half of the first output) is below the threshold.
constexpr std::array<uint32_t, 4> pointwise_random(uint64_t seed, uint64_t offset, int64_t row, int64_t vector) {
  const auto lo = [](auto x) { return static_cast<uint32_t>(x); };
  const auto hi = [](auto x) { return static_cast<uint32_t>(static_cast<uint64_t>(x) >> 32); };
  return philox4x32_7({lo(vector), lo(row), hi(row), lo(offset)}, {lo(seed), hi(seed) ^ hi(offset)});
}

/// sum = residual + dropout(input + input_bias), rounded to the dtype; out = (sum - mean) * rstd * weight + bias with
/// the statistics of each row of `sum`.
struct LayerNormForward {
  PointwiseCall call;
  const void* input = nullptr;
  const float* input_bias = nullptr;               // [width]; null: 0
  const void* residual = nullptr;                  // null: 0
  double dropout_p = 0.0;                          // [0, 1)
  const uint64_t* rng_state = nullptr;             // [2] = {seed, offset} on the device; null without dropout
  const float *weight = nullptr, *bias = nullptr;  // [width]
  double eps = 0.0;
  void* sum = nullptr;  // null: not wanted
  void* out = nullptr;
  float *mean = nullptr, *rstd = nullptr;  // [rows]
};
void layer_norm_forward(const LayerNormForward& params);

struct LayerNormBackward {
  PointwiseCall call;
  const void* grad_out = nullptr;
  const void* grad_sum = nullptr;  // of `sum` from elsewhere; null: 0
  const void* sum = nullptr;
  const float *mean = nullptr, *rstd = nullptr, *weight = nullptr;
  double dropout_p = 0.0;
  const uint64_t* rng_state = nullptr;
  void* grad_residual = nullptr;
  void* grad_input = nullptr;        // null without dropout: it is grad_residual then
  float* grad_input_bias = nullptr;  // [width]; null: not wanted
  float *grad_weight = nullptr, *grad_bias = nullptr;
  float* workspace = nullptr;  // layer_norm_workspace(call) floats
};
int64_t layer_norm_workspace(const PointwiseCall& call);
void layer_norm_backward(const LayerNormBackward& params);

/// x sigmoid(1.702 x) and x Phi(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2), the latter not approximated.
enum class Activation { kQuickGelu, kGelu };

/// out = activation(input + bias).
struct ActivationForward {
  PointwiseCall call;
  Activation activation = Activation::kGelu;
  const void* input = nullptr;
  const float* bias = nullptr;  // [width]
  void* out = nullptr;
};
void activation_forward(const ActivationForward& params);

struct ActivationBackward {
  PointwiseCall call;
  Activation activation = Activation::kGelu;
  const void* grad_out = nullptr;
  const void* input = nullptr;
  const float* bias = nullptr;
  void* grad_input = nullptr;  // may be grad_out
  float* grad_bias = nullptr;  // [width]
  float* workspace = nullptr;  // activation_workspace(call) floats
};
int64_t activation_workspace(const PointwiseCall& call);
void activation_backward(const ActivationBackward& params);

}  // namespace strobe
