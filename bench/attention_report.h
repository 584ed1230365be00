// The rows of `strobe bench attention` as tables and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/attention.h"
#include "bench/roofline.h"

namespace strobe::bench {

/// Device, threads, versions, commit, the ceilings, and what the columns mean.
std::string table_header(const AttentionBenchOptions& options, const Ceilings& ceilings);

/// Of what the device can do at best, which part the row reaches: of the memory's rate and of the products' rate in the
/// row's dtype. 0 where the ceiling is not known.
struct Shares {
  double memory = 0, products = 0;
};
Shares shares(const AttentionRow& row, const Ceilings& ceilings);

/// The lines of one case: one a backend and direction. A backend that does not fit says "oom", one that cannot run says
/// why below.
std::string table(const std::vector<AttentionRow>& rows, const Ceilings& ceilings);

/// Peak memory of forward and backward by length, a line a length and a column a backend, and how it grows: the e of
/// length^e between the last two lengths that fitted, 1 where memory is linear in the length.
std::string memory_table(const std::vector<AttentionRow>& rows);

/// That e, for the backend's rows; nothing where fewer than two lengths were measured.
std::optional<double> memory_growth(const std::vector<AttentionRow>& rows, const std::string& backend);

/// The provenance (bench/machine.h), "ceilings" and "rows". Rows of what did not fit or could not run have null for the
/// numbers and "error": "oom" or the reason.
nlohmann::ordered_json to_json(const std::vector<AttentionRow>& rows, const Ceilings& ceilings,
                               const AttentionBenchOptions& options, const std::string& command);

}  // namespace strobe::bench
