#include "clip/evaluation/id.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace strobe::clip {
namespace {

bool is_decimal(std::string_view text) {
  const bool negative = text.starts_with('-');
  const std::string_view digits = text.substr(negative ? 1 : 0);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (digits.empty() || !std::all_of(digits.begin(), digits.end(), is_digit)) return false;
  return digits[0] != '0' || (digits.size() == 1 && !negative);
}

}  // namespace

Id id_of_key(std::string key) {
  const bool is_integer = is_decimal(key);
  return {std::move(key), is_integer};
}

std::optional<Id> id_of_json(const nlohmann::json& value) {
  if (value.is_string()) return Id{value.get<std::string>(), false};
  if (value.is_number_unsigned()) return Id{std::to_string(value.get<uint64_t>()), true};
  if (value.is_number_integer()) return Id{std::to_string(value.get<int64_t>()), true};
  return std::nullopt;
}

}  // namespace strobe::clip
