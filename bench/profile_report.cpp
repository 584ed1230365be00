#include "bench/profile_report.h"

#include "bench/report.h"

namespace strobe::bench {

std::string profile_header() {
  return format("  %-16s %10s %10s %10s %10s %10s %10s\n", "ms under profiler", "attention", "matrix", "pointwise",
                "optimiser", "host", "wall");
}

std::string profile_line(const std::string& name, const StepProfile& p) {
  return format("  %-16s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f\n", name.c_str(), p.attention, p.matrix, p.pointwise,
                p.optimiser, p.host, p.wall);
}

nlohmann::ordered_json to_json(const StepProfile& p) {
  nlohmann::ordered_json json = {{"attention", p.attention}, {"matrix", p.matrix}, {"pointwise", p.pointwise},
                                 {"optimiser", p.optimiser}, {"host", p.host},     {"wall", p.wall}};
  json["kernels"] = nlohmann::ordered_json::array();
  for (const ProfiledKernel& kernel : p.kernels) {
    json["kernels"].push_back({{"name", kernel.name}, {"ms", kernel.ms}, {"calls", kernel.calls}});
  }
  return json;
}

}  // namespace strobe::bench
