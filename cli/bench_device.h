// The device of the micro-benchmarks.
#pragma once

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <string>

namespace strobe::cli {

/// Adds --device, which sets `name`.
void add_bench_device(CLI::App& app, std::string& name);

/// "cpu", "cuda", or empty for cuda where one is visible and else the CPU. Throws c10::Error where there is no such
/// device.
at::Device bench_device(const std::string& name);

}  // namespace strobe::cli
