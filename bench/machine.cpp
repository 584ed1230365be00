#include "bench/machine.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <vector>

#include "bench/report.h"
#include "train/environment.h"

namespace strobe::bench {
namespace {

/// What nvidia-smi says of the device, a field each; empty where there is no such program or no such field.
std::vector<std::string> ask_nvidia_smi(at::Device device, const std::string& fields) {
  const std::string command = "nvidia-smi --query-gpu=" + fields + " --format=csv,noheader,nounits -i " +
                              std::to_string(static_cast<int>(device.index())) + " 2>/dev/null";
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  char line[256] = "";
  const bool answered = std::fgets(line, sizeof line, pipe) != nullptr;
  if (::pclose(pipe) != 0 || !answered) return {};
  std::vector<std::string> values;
  std::istringstream in(line);
  for (std::string value; std::getline(in >> std::ws, value, ',');) {
    values.push_back(value.substr(0, value.find('\n')));
  }
  return values;
}

nlohmann::ordered_json core_clock() {
  std::ifstream in("/proc/cpuinfo");
  double fastest = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("cpu MHz")) fastest = std::max(fastest, std::atof(line.c_str() + line.find(':') + 1));
  }
  if (fastest == 0) return nullptr;
  return {{"core", fastest}};
}

}  // namespace

nlohmann::ordered_json clocks(at::Device device) {
  if (device.is_cpu()) return core_clock();
  const auto found = ask_nvidia_smi(device, "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem");
  if (found.size() != 4) return nullptr;
  const auto mhz = [&](std::size_t i) { return std::atof(found[i].c_str()); };
  return {{"sm", mhz(0)}, {"memory", mhz(1)}, {"sm_max", mhz(2)}, {"memory_max", mhz(3)}};
}

nlohmann::ordered_json versions(at::Device device) {
  nlohmann::ordered_json json = {{"torch", train::torch_version()}};
  if (!device.is_cuda()) return json;
  json["cuda"] = at::detail::getCUDAHooks().versionCUDART();
  json["cudnn"] = at::detail::getCUDAHooks().versionRuntimeCuDNN();
  const auto driver = ask_nvidia_smi(device, "driver_version");
  json["driver"] = driver.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(driver.front());
  return json;
}

nlohmann::ordered_json provenance(const std::string& what, at::Device device, const std::string& command) {
  return {{"what", what},
          {"commit", train::commit()},
          {"device", device_text(device)},
          {"clocks_mhz", clocks(device)},
          {"torch", train::torch_version()},
          {"versions", versions(device)},
          {"command", command}};
}

}  // namespace strobe::bench
