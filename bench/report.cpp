#include "bench/report.h"

#include <ATen/Parallel.h>

#include <cstdarg>
#include <cstdio>
#include <utility>

#include "train/atomic_file.h"
#include "train/environment.h"

namespace strobe::bench {

std::string format(const char* pattern, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

const char* dtype_name(at::ScalarType dtype) {
  return dtype == at::kFloat ? "fp32" : dtype == at::kHalf ? "fp16" : "bf16";
}

std::string device_text(at::Device device) {
  if (!device.is_cpu()) return train::device_name(device);
  return train::device_name(device) + ", " + std::to_string(at::get_num_threads()) + " threads";
}

std::string machine_line(at::Device device) {
  return "device " + device_text(device) + "; instruction sets " + train::instruction_sets() + "; torch " +
         train::torch_version() + "; commit " + train::commit() + "\n";
}

JsonFile::JsonFile(std::filesystem::path file) : file_(std::move(file)) { const train::AtomicFile tried(file_); }

void JsonFile::write(const nlohmann::ordered_json& content) const {
  train::AtomicFile out(file_);
  out.write(content.dump(1) + '\n');
  out.commit();
}

}  // namespace strobe::bench
