#include "cli/bench_device.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include "cli/options.h"

namespace strobe::cli {

void add_bench_device(CLI::App& app, std::string& name) {
  app.add_option("--device", name, "cuda where one is visible, else cpu, without it")
      ->transform(one_of({"cpu", "cuda"}));
}

at::Device bench_device(const std::string& name) {
  const bool visible = at::globalContext().hasCUDA();
  if (name.empty()) return visible ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (name == "cpu") return at::kCPU;
#ifndef STROBE_CUDA
  TORCH_CHECK(visible, "--device: expected cpu, because this program was built without CUDA, found cuda");
#endif
  TORCH_CHECK(visible, "--device: expected cpu, because no CUDA device is visible, found cuda");
  return {at::kCUDA, 0};
}

}  // namespace strobe::cli
