#include "nn/embedding.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "nn/dropout.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "strobe/types.h"

namespace strobe::nn {
namespace {

constexpr int64_t kFirstPositions = 256;

}  // namespace

at::Tensor sinusoidal_positions(int64_t length, int64_t d_model, at::ScalarType dtype) {
  if (d_model < 2 || d_model % 2 != 0) {
    throw Error("sinusoidal positions: d_model must be even, got " + std::to_string(d_model));
  }
  const auto real = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor exponents = at::arange(0, d_model, 2, real).div_(static_cast<double>(d_model));
  const at::Tensor angles = at::outer(at::arange(length, real), at::pow(10000.0, exponents).reciprocal_());
  at::Tensor table = at::empty({length, d_model / 2, 2}, dtype);
  table.select(2, 0).copy_(angles.sin());
  table.select(2, 1).copy_(angles.cos());
  return table.view({length, d_model});
}

TokenEmbeddingImpl::TokenEmbeddingImpl(const at::Tensor& weight, double dropout)
    : weight_(weight),
      positions_(sinusoidal_positions(kFirstPositions, weight.size(1), weight.scalar_type())),
      scale_(std::sqrt(static_cast<double>(weight.size(1)))),
      dropout_(dropout) {}

TokenEmbeddingImpl::TokenEmbeddingImpl(int64_t vocabulary, int64_t d_model, double dropout)
    : TokenEmbeddingImpl(torch::nn::Embedding(vocabulary, d_model), dropout) {}

TokenEmbeddingImpl::TokenEmbeddingImpl(const torch::nn::Embedding& tokens, double dropout)
    : TokenEmbeddingImpl(tokens->weight, dropout) {
  register_module("tokens", tokens);
  xavier_uniform_(weight_);
}

const at::Tensor& TokenEmbeddingImpl::positions(int64_t needed) {
  const int64_t available = positions_.size(0);
  if (available < needed || positions_.scalar_type() != weight_.scalar_type()) {
    positions_ = sinusoidal_positions(std::max(available < needed ? 2 * available : available, needed), weight_.size(1),
                                      weight_.scalar_type());
  }
  positions_ = positions_.to(weight_.device());  // no copy once the table is where the weight is
  return positions_;
}

at::Tensor TokenEmbeddingImpl::embed(const at::Tensor& ids, const at::Tensor& rows) {
  const at::Tensor x = nn::dropout(at::add(rows, at::embedding(weight_, ids), scale_), dropout_, is_training());
  return x.is_cuda() ? for_products(x) : x;
}

at::Tensor TokenEmbeddingImpl::forward(const at::Tensor& ids, const Sequences& sequences) {
  if (sequences.packed()) return embed(ids, positions(sequences.longest).index_select(0, sequences.positions));
  return embed(ids, positions(ids.size(1)).narrow(0, 0, ids.size(1)));
}

at::Tensor TokenEmbeddingImpl::step(const at::Tensor& ids, int64_t position) {
  return embed(ids, positions(position + 1).narrow(0, position, 1));
}

}  // namespace strobe::nn
