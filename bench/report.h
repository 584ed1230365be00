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

/// A file that takes its name only when it is whole. Its place is tried when it is made, so that no measurement is lost
/// to a wrong path.
class JsonFile {
 public:
  explicit JsonFile(std::filesystem::path file);
  ~JsonFile();
  JsonFile(const JsonFile&) = delete;
  JsonFile& operator=(const JsonFile&) = delete;

  void write(const nlohmann::ordered_json& content);

 private:
  [[noreturn]] void fail(const std::string& reason) const;

  std::filesystem::path file_, temporary_;
};

}  // namespace strobe::bench
