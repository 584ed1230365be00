#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "clip/evaluation/id.h"

namespace strobe::clip::internal {

/// Parses one line of a feature file, appending its numbers to `values`; other keys are passed over. A general parser
/// takes several times as long. Throws std::runtime_error with what is wrong.
Id parse_feature_line(std::string_view line, std::string_view id_key, std::vector<float>& values);

}  // namespace strobe::clip::internal
