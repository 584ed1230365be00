// The ids of images and texts in feature, prediction and annotation files.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace strobe::clip {

/// An integer or a string. Two ids are the same where they read the same: an image's id is a string in a database and
/// may be an integer in the annotations.
struct Id {
  std::string text;
  bool is_integer = false;  // how it is written

  bool operator==(const Id& other) const { return text == other.text; }
};

/// A database's key: an integer where it is written like one (no sign but '-', no leading zero).
Id id_of_key(std::string key);

/// Nothing where `value` is neither an integer nor a string.
std::optional<Id> id_of_json(const nlohmann::json& value);

}  // namespace strobe::clip

template <>
struct std::hash<strobe::clip::Id> {
  std::size_t operator()(const strobe::clip::Id& id) const { return std::hash<std::string>()(id.text); }
};
