// prepare.json: where a data folder came from.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "nmt/prepare_input.h"

namespace strobe::nmt {

/// {"inputs": [{"file", "bytes", "sha1"}], "built_in_corpus", "seed", "pairs", "skipped", "length_limits", "left_out",
/// "vocabularies_from", "joint_vocabulary", "source_vocabulary", "target_vocabulary"}.
nlohmann::ordered_json prepare_record(const PrepareOptions& options, const PrepareInput& input,
                                      const PrepareSummary& summary);

}  // namespace strobe::nmt
