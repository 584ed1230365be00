// A step's profile as text and JSON, for every benchmark that profiles.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/step_profile.h"

namespace strobe::bench {

/// The heading of profile_line's columns.
std::string profile_header();
std::string profile_line(const std::string& name, const StepProfile& profile);

nlohmann::ordered_json to_json(const StepProfile& profile);

}  // namespace strobe::bench
