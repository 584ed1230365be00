#include "bench/step_profile.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "train/device.h"

namespace strobe::bench {
namespace {

namespace kineto = torch::autograd::profiler;
namespace impl = torch::profiler::impl;

constexpr double kNsPerMs = 1e6;
constexpr std::size_t kLongestKernels = 40;

// The operators, and the node of autograd whose backward calls them.
constexpr std::array<std::string_view, 3> kAttention{"strobe::attention", "strobe::dotscale", "AttentionFunction"};
constexpr std::array<std::string_view, 8> kMatrix{"aten::mm",           "aten::addmm",    "aten::bmm",
                                                  "aten::baddbmm",      "aten::matmul",   "convolution",
                                                  "aten::_addmm_activ", "mkldnn::_linear"};
constexpr std::array<std::string_view, 7> kOptimiser{"_fused_adam", "_foreach_",          "_amp_",     "_unscale",
                                                     "isfinite",    "linalg_vector_norm", "nan_to_num"};

template <std::size_t N>
bool contains_any(std::string_view name, const std::array<std::string_view, N>& parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

/// An operator of the host, or what a device did.
struct Span {
  std::string name;
  uint64_t begin = 0, end = 0;  // ns
  uint64_t id = 0;              // of an operator; of a kernel the operator that launched it
  uint64_t thread = 0;
};

struct Trace {
  std::vector<Span> operators, kernels;
};

Trace read(const kineto::ProfilerResult& result) {
  Trace trace;
  for (const kineto::KinetoEvent& event : result.events()) {
    const Span span{event.name(), event.startNs(), event.endNs(), 0, event.startThreadId()};
    if (event.deviceType() != at::kCPU) {
      trace.kernels.push_back(span);
      trace.kernels.back().id = event.linkedCorrelationId();
    } else if (event.linkedCorrelationId() == 0) {  // else a call of the device's runtime
      trace.operators.push_back(span);
      trace.operators.back().id = event.correlationId();
    }
  }
  // An operator that contains another begins before it, or with it and ends later.
  std::sort(trace.operators.begin(), trace.operators.end(), [](const Span& a, const Span& b) {
    return std::tie(a.thread, a.begin, b.end) < std::tie(b.thread, b.begin, a.end);
  });
  std::sort(trace.kernels.begin(), trace.kernels.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  return trace;
}

/// Calls `visit` with each operator, what it is filed under, and its time without that of the operators inside.
template <typename Visit>
void visit_operators(const std::vector<Span>& operators, const Visit& visit) {
  struct Open {
    const Span* span;
    uint64_t own;
    Share share;
  };
  std::vector<Open> open;
  std::vector<std::string> names;
  const auto close = [&] {
    visit(*open.back().span, open.back().share, open.back().own);
    open.pop_back();
    names.pop_back();
  };
  for (const Span& span : operators) {
    while (!open.empty() && (open.back().span->thread != span.thread || open.back().span->end < span.end)) close();
    const uint64_t time = span.end - span.begin;
    if (!open.empty()) open.back().own -= std::min(open.back().own, time);
    names.push_back(span.name);
    open.push_back({&span, time, share_of(names)});
  }
  while (!open.empty()) close();
}

/// When at least one of the spans, which are sorted by their begin, lasts.
uint64_t covered(const std::vector<Span>& spans) {
  uint64_t sum = 0, end = 0;
  for (const Span& span : spans) {
    sum += span.end - std::min(span.end, std::max(span.begin, end));
    end = std::max(end, span.end);
  }
  return sum;
}

/// Adds up times by what they are filed under and by name.
class Shares {
 public:
  void add(Share share, const std::string& name, uint64_t ns) {
    ns_[static_cast<std::size_t>(share)] += static_cast<double>(ns);
    ProfiledKernel& kernel = kernels_[name];
    kernel.ms += static_cast<double>(ns) / kNsPerMs;
    kernel.calls += 1.0;
  }

  StepProfile profile(double wall_ns, double busy_ns, double steps) const {
    const auto ms = [&](double ns) { return ns / kNsPerMs / steps; };
    const auto of = [&](Share share) { return ms(ns_[static_cast<std::size_t>(share)]); };
    return {of(Share::kAttention),
            of(Share::kMatrix),
            of(Share::kOptimiser),
            of(Share::kPointwise),
            ms(std::max(0.0, wall_ns - busy_ns)),
            ms(wall_ns),
            longest(steps)};
  }

  double sum() const {
    double sum = 0.0;
    for (const double ns : ns_) sum += ns;
    return sum;
  }

 private:
  std::vector<ProfiledKernel> longest(double steps) const {
    std::vector<ProfiledKernel> kernels;
    for (const auto& [name, kernel] : kernels_) kernels.push_back({name, kernel.ms / steps, kernel.calls / steps});
    std::sort(kernels.begin(), kernels.end(),
              [](const ProfiledKernel& a, const ProfiledKernel& b) { return a.ms > b.ms; });
    if (kernels.size() > kLongestKernels) kernels.resize(kLongestKernels);
    return kernels;
  }

  std::array<double, 4> ns_{};
  std::unordered_map<std::string, ProfiledKernel> kernels_;
};

}  // namespace

Share share_of(const std::vector<std::string>& operators) {
  for (const std::string& name : operators) {
    if (contains_any(name, kAttention)) return Share::kAttention;
  }
  for (const std::string& name : operators) {
    if (contains_any(name, kOptimiser)) return Share::kOptimiser;
  }
  if (!operators.empty() && contains_any(operators.back(), kMatrix)) return Share::kMatrix;
  return Share::kPointwise;
}

StepProfile profile_steps(const std::function<void()>& step, int64_t steps, at::Device device) {
  using Clock = std::chrono::steady_clock;
  std::set<impl::ActivityType> activities{impl::ActivityType::CPU};
  if (!device.is_cpu()) activities.insert(impl::ActivityType::CUDA);
  const impl::ProfilerConfig config(impl::ProfilerState::KINETO);
  kineto::prepareProfiler(config, activities);
  kineto::enableProfiler(config, activities);
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < steps; ++i) step();
  train::synchronize(device);
  const double wall = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  const Trace trace = read(*kineto::disableProfiler());

  Shares shares;
  std::unordered_map<uint64_t, Share> launched_by;
  visit_operators(trace.operators, [&](const Span& span, Share share, uint64_t own) {
    if (device.is_cpu()) shares.add(share, span.name, own);
    launched_by[span.id] = share;
  });
  if (device.is_cpu()) return shares.profile(wall, shares.sum(), static_cast<double>(steps));
  for (const Span& kernel : trace.kernels) {
    const auto found = launched_by.find(kernel.id);
    const Share share = found == launched_by.end() ? Share::kPointwise : found->second;
    shares.add(share, kernel.name, kernel.end - kernel.begin);
  }
  return shares.profile(wall, static_cast<double>(covered(trace.kernels)), static_cast<double>(steps));
}

}  // namespace strobe::bench
