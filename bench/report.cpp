#include "bench/report.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <utility>

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

JsonFile::JsonFile(std::filesystem::path file)
    : file_(std::move(file)), temporary_(file_.string() + ".tmp" + std::to_string(::getpid())) {
  if (!std::ofstream(temporary_)) fail("the folder is missing or not writable");
}

JsonFile::~JsonFile() {
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void JsonFile::write(const nlohmann::ordered_json& content) {
  std::ofstream out(temporary_);
  out << content.dump(1) << '\n';
  out.close();
  if (!out) fail("the disk refused it");
  std::error_code error;
  std::filesystem::rename(temporary_, file_, error);
  if (error) fail(error.message());
}

void JsonFile::fail(const std::string& reason) const {
  TORCH_CHECK(false, "--json: ", file_.string(), " cannot be written: ", reason);
}

}  // namespace strobe::bench
