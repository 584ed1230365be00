#include "clip/checkpoint/load.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>

#include "train/checkpoint.h"

namespace strobe::clip {
namespace {

using train::CheckpointError;
using train::Dict;

constexpr const char* kPositions = "visual.positional_embedding";
constexpr std::size_t kListed = 8;  // names in a message

std::string list_names(const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  const auto shown = static_cast<std::ptrdiff_t>(std::min(names.size(), kListed));
  const std::string rest = names.size() > kListed ? fmt::format(" and {} more", names.size() - kListed) : "";
  return fmt::format("; {}: {}{}", what, fmt::join(names.begin(), names.begin() + shown, ", "), rest);
}

/// The grid of 1 + grid * grid rows, 0 where there is none.
int64_t grid_of(int64_t rows) {
  const auto grid = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(rows - 1))));
  return rows > 1 && grid * grid == rows - 1 ? grid : 0;
}

/// Files older than torch 1.0 lack the counts, which torch's own modules do without.
bool may_be_missing(const std::string& name) { return name.ends_with(".num_batches_tracked"); }

}  // namespace

at::Tensor resize_position_embedding(const at::Tensor& embedding, int64_t grid) {
  const int64_t old_grid = embedding.dim() == 2 ? grid_of(embedding.size(0)) : 0;
  if (old_grid == 0 || grid < 1) {
    throw CheckpointError(fmt::format("position embeddings: expected [1 + grid * grid, width], found [{}]",
                                      fmt::join(embedding.sizes(), ", ")));
  }
  const at::NoGradGuard no_grad;
  const at::Tensor values = embedding.to(at::kFloat);
  const at::Tensor squares = values.narrow(0, 1, old_grid * old_grid).t().reshape({1, -1, old_grid, old_grid});
  const at::Tensor resized = at::upsample_bicubic2d(squares, {grid, grid}, /*align_corners=*/true);
  return at::cat({values.narrow(0, 0, 1), resized.reshape({-1, grid * grid}).t()});
}

LoadReport load_clip_weights(torch::nn::Module& model, const Dict& state, const LoadOptions& options) {
  const Dict own = train::module_state(model);
  LoadReport report;
  std::vector<std::string> misshaped;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // to, from
  for (const auto& [key, value] : own) {
    const auto& name = std::get<std::string>(key);
    const at::Tensor& target = value.as_tensor();
    const train::Value* saved = state.find(key);
    if (saved == nullptr) {
      if (!may_be_missing(name)) report.missing.push_back(name);
      continue;
    }
    at::Tensor source = saved->as_tensor();
    if (name == kPositions && source.sizes() != target.sizes() && source.dim() == 2 &&
        source.size(1) == target.size(1)) {
      source = resize_position_embedding(source, grid_of(target.size(0)));
      report.resized = true;
    }
    if (source.sizes() != target.sizes()) {
      misshaped.push_back(fmt::format("{} (expected [{}], found [{}])", name, fmt::join(target.sizes(), ", "),
                                      fmt::join(source.sizes(), ", ")));
    }
    copies.emplace_back(target, source);
  }
  for (const auto& [key, value] : state) {
    if (!own.contains(key)) report.unexpected.push_back(std::get<std::string>(key));
  }
  const bool fits = misshaped.empty() && (!options.strict || (report.missing.empty() && report.unexpected.empty()));
  if (!fits) {
    throw CheckpointError(
        "weights that do not fit the model" + list_names("of another shape", misshaped) +
        (options.strict ? list_names("missing", report.missing) + list_names("unexpected", report.unexpected) : ""));
  }
  const at::NoGradGuard no_grad;
  for (auto& [target, source] : copies) target.copy_(source);
  return report;
}

}  // namespace strobe::clip
