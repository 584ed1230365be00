// The rows of `strobe bench attention` as a table and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/attention.h"

namespace strobe::bench {

/// Device, threads, versions, commit, and what the columns mean: two lines.
std::string table_header(const AttentionBenchOptions& options);

/// The lines of one shape: one a backend, forward and backward side by side. A backend that does not fit says "oom",
/// one that cannot run says why below.
std::string table(const std::vector<AttentionRow>& rows);

/// {"what": "attention", "commit", "device", "torch", "command", "rows": [..]}. Rows of what did not fit or could not
/// run have null for the numbers and "error": "oom" or the reason.
nlohmann::ordered_json to_json(const std::vector<AttentionRow>& rows, const AttentionBenchOptions& options,
                               const std::string& command);

}  // namespace strobe::bench
