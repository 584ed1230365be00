// JSON as Python's json.dumps writes it, byte for byte: ", " and ": ", ASCII alone, floats as repr has them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "clip/evaluation/id.h"

namespace strobe::clip {

/// repr(value): the shortest digits that read back as `value`, without an exponent from 1e-4 to below 1e16.
void append_float(std::string& out, double value);
void append_string(std::string& out, std::string_view utf8);
void append_id(std::string& out, const Id& id);
void append_ids(std::string& out, const std::vector<Id>& ids);

/// {"<query_key>": query, "<answers_key>": [...]} and a new line.
std::string ids_line(std::string_view query_key, const Id& query, std::string_view answers_key,
                     const std::vector<Id>& answers);

}  // namespace strobe::clip
