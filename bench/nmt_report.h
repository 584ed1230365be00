// The rows of `strobe bench nmt` as a table and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/nmt.h"

namespace strobe::bench {

/// Device, threads, versions, commit, and what the columns mean.
std::string table_header(const NmtBenchOptions& options);

/// The lines of one task and case.
std::string table(const std::vector<NmtRow>& rows);

/// {"what": "nmt", "commit", "device", "torch", "versions" (the peers'), "command", "model", "rows": [..]}. Rows of
/// what could not run have null for the numbers and the reason as "error".
nlohmann::ordered_json to_json(const std::vector<NmtRow>& rows, const NmtReport& report, const NmtBenchOptions& options,
                               const std::string& command);

}  // namespace strobe::bench
