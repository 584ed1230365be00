// Measures several ways to do one thing side by side: they take turns, so that a drift of the machine meets all alike.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace strobe::bench {

/// One way, as phases that run in order in each repetition ("fwd" leaves what "bwd" needs).
struct Contender {
  struct Phase {
    std::string name;
    std::function<void()> run;
  };
  std::string name;
  std::vector<Phase> phases;
};

enum class Timing {
  kDevice,  // what the device does in a phase: cold L2, queued ahead so that the host's gaps do not count (Stopwatch)
  kWall,    // what a user waits for a phase: the host's time too, until the device is done
};

/// A repetition more while there are fewer than `min_repetitions`, or fewer than `max_repetitions` and some phase has
/// taken less than `seconds`.
struct Budget {
  int64_t min_repetitions = 3;
  int64_t max_repetitions = 1000;
  double seconds = 2.0;
};

struct PhaseResult {
  std::string name;
  std::vector<double> ms;       // one a repetition
  std::vector<double> host_ms;  // likewise: what the host took to queue the phase; on the CPU the same as `ms`
  double peak_mib = 0;  // taken from torch's allocator beyond what the repetition found, at most at once in this phase
};

struct ContenderResult {
  enum class Status { kMeasured, kOutOfMemory, kCannotRun };
  std::string name;
  Status status = Status::kMeasured;
  std::string why;  // kCannotRun
  std::vector<PhaseResult> phases;
};

/// Warm-up, memory, then the timed turns. A contender that throws leaves the round; its error becomes its status.
std::vector<ContenderResult> measure(const std::vector<Contender>& contenders, const Budget& budget, at::Device device,
                                     Timing timing = Timing::kDevice);

/// Runs `body`; what it throws becomes the result's status, and the memory that torch caches is given back.
void guarded(ContenderResult& result, at::Device device, const std::function<void()>& body);

double median(std::vector<double> values);

}  // namespace strobe::bench
