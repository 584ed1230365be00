// What the reports of all benchmarks have in common.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace strobe::bench {

/// std::printf into a string of at most 511 characters.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

/// "fp32", "bf16" or "fp16".
const char* dtype_name(at::ScalarType dtype);

/// The device's name; of the CPU with the threads in use.
std::string device_text(at::Device device);

/// The line that every table begins with: device, instruction sets, torch, commit.
std::string machine_line(at::Device device);

/// A file that is there whole or not at all, however often it is written. Its place is tried when this is made, so that
/// no measurement is lost to a wrong path: train::CheckpointError naming it.
class JsonFile {
 public:
  explicit JsonFile(std::filesystem::path file);
  void write(const nlohmann::ordered_json& content) const;

 private:
  std::filesystem::path file_;
};

}  // namespace strobe::bench
