#include "bench/roofline.h"

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "nn/linear.h"

namespace strobe::bench {
namespace {

using Kind = RooflineRow::Kind;

/// Tensors that come into being with the first use, so that what does not fit is that row's failure.
template <std::size_t N>
class Tensors {
 public:
  explicit Tensors(std::function<at::Tensor()> make) : make_(std::move(make)) {}
  at::Tensor& operator[](std::size_t i) {
    if (!tensors_[i].defined()) tensors_[i] = make_();
    return tensors_[i];
  }

 private:
  std::function<at::Tensor()> make_;
  std::array<at::Tensor, N> tensors_;
};

void copy(at::Tensor& to, const at::Tensor& from) {
  if (!to.is_cpu()) {
    to.copy_(from);
    return;
  }
  auto* destination = static_cast<char*>(to.mutable_data_ptr());
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  at::parallel_for(0, static_cast<int64_t>(from.nbytes()), /*grain_size=*/1 << 20, [&](int64_t begin, int64_t end) {
    std::memcpy(destination + begin, source + begin, static_cast<std::size_t>(end - begin));
  });
}

/// A row that is yet to be measured, and its work.
struct Entry {
  RooflineRow row;
  std::function<void()> run;
};

std::vector<Entry> memory_entries(const RooflineOptions& options) {
  const int64_t elements = options.bytes / int64_t{sizeof(float)};
  const auto tensors = std::make_shared<Tensors<3>>(
      [=, device = options.device] { return at::ones({elements}, at::TensorOptions().device(device)); });
  const auto row = [&](const char* name) {
    RooflineRow result;
    result.name = name;
    result.size = elements * int64_t{sizeof(float)};
    return result;
  };
  return {{row("copy"), [tensors] { copy((*tensors)[0], (*tensors)[1]); }},
          {row("triad"), [tensors] { at::add_out((*tensors)[0], (*tensors)[1], (*tensors)[2], /*alpha=*/2); }}};
}

std::vector<Entry> product_entries(const RooflineOptions& options, at::ScalarType dtype, int64_t n) {
  const auto make = at::TensorOptions().device(options.device).dtype(dtype);
  const auto tensors = std::make_shared<Tensors<3>>([=] { return at::randn({n, n}, make); });
  const auto bias = std::make_shared<Tensors<1>>([=] { return at::zeros({n}, make); });
  const auto row = [&](const char* name) {
    RooflineRow result;
    result.kind = Kind::kProduct;
    result.name = name;
    result.dtype = dtype;
    result.size = n;
    return result;
  };
  return {{row("mm"), [tensors] { at::mm_out((*tensors)[0], (*tensors)[1], (*tensors)[2]); }},
          {row("linear"), [tensors, bias] { nn::linear((*tensors)[1], (*tensors)[2], (*bias)[0]); }}};
}

void take_result(RooflineRow& row, const ContenderResult& result) {
  row.status = result.status;
  row.why = result.why;
  if (!result.phases.empty()) row.ms = result.phases.front().ms;
}

/// The entries of one group share their tensors, which are given back after it.
void measure_group(const std::vector<Entry>& entries, const RooflineOptions& options, std::vector<RooflineRow>& rows) {
  std::vector<Contender> contenders;
  for (const Entry& entry : entries) contenders.push_back({entry.row.name, {{"run", entry.run}}});
  const std::vector<ContenderResult> results = measure(contenders, options.budget, options.device);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    rows.push_back(entries[i].row);
    take_result(rows.back(), results[i]);
  }
}

}  // namespace

RooflineOptions roofline_options(at::Device device) {
  constexpr int64_t kMiB = 1 << 20;
  if (device.is_cpu()) {
    return {device, 256 * kMiB, {512, 1024, 2048}, {at::kFloat, at::kBFloat16}, {5, 100, 1.0}};
  }
  return {device, 1024 * kMiB, {4096, 8192, 16384}, {at::kBFloat16, at::kHalf}, {10, 100, 1.0}};
}

RooflineOptions quick_roofline_options(at::Device device, std::vector<at::ScalarType> dtypes) {
  RooflineOptions options = roofline_options(device);
  options.sizes = {options.sizes[1]};
  options.dtypes = std::move(dtypes);
  options.budget = {5, 20, 0.3};
  return options;
}

double RooflineRow::work() const {
  const auto n = static_cast<double>(size);
  if (kind == Kind::kProduct) return 2 * n * n * n;
  return (name == "copy" ? 2 : 3) * n;
}

double RooflineRow::rate() const { return work() / (median(ms) * 1e-3); }

std::vector<RooflineRow> bench_roofline(const RooflineOptions& options) {
  const c10::NoGradGuard no_grad;
  std::vector<RooflineRow> rows;
  measure_group(memory_entries(options), options, rows);
  for (const at::ScalarType dtype : options.dtypes) {
    for (const int64_t n : options.sizes) measure_group(product_entries(options, dtype, n), options, rows);
  }
  return rows;
}

double Ceilings::flops(at::ScalarType dtype) const {
  const auto found = flops_per_s.find(dtype);
  return found == flops_per_s.end() ? 0.0 : found->second;
}

Ceilings ceilings(const std::vector<RooflineRow>& rows) {
  Ceilings best;
  for (const RooflineRow& row : rows) {
    if (row.status != ContenderResult::Status::kMeasured) continue;
    double& ceiling = row.kind == Kind::kMemory ? best.bytes_per_s : best.flops_per_s[row.dtype];
    // Of the fastest repetition: on a busy machine the median is no ceiling.
    ceiling = std::max(ceiling, row.work() / (*std::min_element(row.ms.begin(), row.ms.end()) * 1e-3));
  }
  return best;
}

}  // namespace strobe::bench
