// Where a measurement was made, for its JSON.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <string>

namespace strobe::bench {

/// In MHz: of the CPU {"core"}, the fastest core's present clock; of a GPU {"sm", "memory", "sm_max", "memory_max"}, as
/// nvidia-smi says. Null where the system does not tell.
nlohmann::ordered_json clocks(at::Device device);

/// {"torch"}, of a GPU also {"cuda", "cudnn", "driver"}.
nlohmann::ordered_json versions(at::Device device);

/// What the JSON of every benchmark begins with: {"what", "commit", "device", "clocks_mhz", "torch", "versions",
/// "command"}.
nlohmann::ordered_json provenance(const std::string& what, at::Device device, const std::string& command);

}  // namespace strobe::bench
