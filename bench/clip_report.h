// The table and the JSON of `strobe bench clip`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/clip.h"

namespace strobe::bench {

std::string table_header(const ClipBenchOptions& options);

/// The rows of one size.
std::string table(const std::vector<ClipRow>& rows);

/// {"what": "clip", "commit", "device", "torch", "versions", "command", "precision", "rows": [{"size", "batch", "gpus",
/// "attn_type", "ms", "ms_min", "ms_max", "peak_gib"}]}, with "profile" where there is one, "efficiency" where one GPU
/// has been measured too, "error" and nulls where a contender could not run.
nlohmann::ordered_json to_json(const std::vector<ClipRow>& rows, const nlohmann::ordered_json& peer_versions,
                               const ClipBenchOptions& options, const std::string& command);

}  // namespace strobe::bench
