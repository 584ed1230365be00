// The rows of `strobe bench roofline` as a table and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/roofline.h"

namespace strobe::bench {

/// With a line of the ceilings at the end.
std::string table(const std::vector<RooflineRow>& rows);

/// "memory 21.3 GB/s, fp32 0.212 TFLOP/s": what is known.
std::string text_of(const Ceilings& ceilings);

/// {"memory_gb_per_s", "fp32_tflops", ..}, what is known.
nlohmann::ordered_json to_json(const Ceilings& ceilings);

/// The provenance (bench/machine.h), "ceilings" and "rows".
nlohmann::ordered_json to_json(const std::vector<RooflineRow>& rows, at::Device device, const std::string& command);

}  // namespace strobe::bench
