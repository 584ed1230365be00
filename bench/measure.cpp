#include "bench/measure.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "bench/memory.h"
#include "bench/stopwatch.h"
#include "train/device.h"

namespace strobe::bench {
namespace {

constexpr int kWarmups = 3;             // the first measures memory
constexpr double kWarmupSeconds = 0.5;  // no further warm-up after that

using Status = ContenderResult::Status;

void measure_memory(const Contender& contender, ContenderResult& result, at::Device device) {
  PeakMemory peak(device);
  for (const Contender::Phase& phase : contender.phases) {
    peak.reset();
    phase.run();
    train::synchronize(device);
    result.phases.push_back({phase.name, {}, {}, peak.mib()});
  }
}

void warm_up(const Contender& contender, ContenderResult& result, at::Device device) {
  const auto begin = std::chrono::steady_clock::now();
  measure_memory(contender, result, device);
  for (int i = 1; i < kWarmups; ++i) {
    if (std::chrono::steady_clock::now() - begin > std::chrono::duration<double>(kWarmupSeconds)) return;
    for (const Contender::Phase& phase : contender.phases) phase.run();
    train::synchronize(device);
  }
}

void repeat(const Contender& contender, ContenderResult& result, Stopwatch& stopwatch,
            const std::function<void()>& finish) {
  for (std::size_t i = 0; i < contender.phases.size(); ++i) {
    const std::vector<double>& host_ms = result.phases[i].host_ms;
    stopwatch.start(host_ms.empty() ? 0.0 : host_ms.back());
    contender.phases[i].run();
    finish();
    stopwatch.stop();
  }
  const std::vector<Stopwatch::Time> times = stopwatch.collect();
  for (std::size_t i = 0; i < times.size(); ++i) {
    result.phases[i].ms.push_back(times[i].ms);
    result.phases[i].host_ms.push_back(times[i].host_ms);
  }
}

bool wants_more(const ContenderResult& result, const Budget& budget) {
  if (result.status != Status::kMeasured) return false;
  const auto repetitions = static_cast<int64_t>(result.phases.front().ms.size());
  if (repetitions < budget.min_repetitions) return true;
  if (repetitions >= budget.max_repetitions) return false;
  return std::any_of(result.phases.begin(), result.phases.end(), [&](const PhaseResult& phase) {
    return std::accumulate(phase.ms.begin(), phase.ms.end(), 0.0) < budget.seconds * 1e3;
  });
}

}  // namespace

void guarded(ContenderResult& result, at::Device device, const std::function<void()>& body) {
  const auto failed = [&](const std::exception& error, const std::string& text) {
    result.status = train::is_out_of_memory(error) ? Status::kOutOfMemory : Status::kCannotRun;
    result.why = text.substr(0, text.find('\n'));
    result.phases.clear();
    train::release_cached_memory(device);
  };
  try {
    body();
  } catch (const c10::Error& error) {
    failed(error, error.what_without_backtrace());
  } catch (const std::exception& error) {
    failed(error, error.what());
  }
}

std::vector<ContenderResult> measure(const std::vector<Contender>& contenders, const Budget& budget, at::Device device,
                                     Timing timing) {
  std::vector<ContenderResult> results(contenders.size());
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    results[i].name = contenders[i].name;
    guarded(results[i], device, [&] { warm_up(contenders[i], results[i], device); });
  }
  // The host's clock, where the host's time counts.
  Stopwatch stopwatch(timing == Timing::kWall ? at::Device(at::kCPU) : device);
  const auto finish = [&] {
    if (timing == Timing::kWall) train::synchronize(device);
  };
  for (bool more = true; more;) {
    more = false;
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      if (!wants_more(results[i], budget)) continue;
      more = true;
      guarded(results[i], device, [&] { repeat(contenders[i], results[i], stopwatch, finish); });
    }
  }
  return results;
}

double median(std::vector<double> values) {
  TORCH_CHECK(!values.empty(), "median: values: expected at least 1, found none");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

}  // namespace strobe::bench
