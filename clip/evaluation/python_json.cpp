#include "clip/evaluation/python_json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace strobe::clip {
void append_float(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    return;
  }
  std::array<char, 32> buffer;
  const auto written =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  std::string_view text(buffer.data(), static_cast<std::size_t>(written.ptr - buffer.data()));
  if (text.starts_with('-')) {
    out += '-';
    text.remove_prefix(1);
  }
  const std::size_t e = text.find('e');
  int exponent = 0;
  const std::size_t sign = text[e + 1] == '+' ? 2 : 1;  // from_chars takes no plus
  std::from_chars(text.data() + e + sign, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    out += text;
    return;
  }
  std::string digits(text.substr(0, 1));
  if (e > 2) digits += text.substr(2, e - 2);
  const auto before_point = static_cast<std::size_t>(exponent + 1);
  if (exponent < 0) {
    out.append("0.").append(static_cast<std::size_t>(-exponent - 1), '0').append(digits);
  } else if (digits.size() <= before_point) {
    out.append(digits).append(before_point - digits.size(), '0').append(".0");
  } else {
    out.append(digits, 0, before_point).append(1, '.').append(digits, before_point);
  }
}

void append_string(std::string& out, std::string_view utf8) {
  out += nlohmann::json(utf8).dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

void append_id(std::string& out, const Id& id) {
  if (id.is_integer) {
    out += id.text;
  } else {
    append_string(out, id.text);
  }
}

void append_ids(std::string& out, const std::vector<Id>& ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ", ";
    append_id(out, ids[i]);
  }
  out += ']';
}

std::string ids_line(std::string_view query_key, const Id& query, std::string_view answers_key,
                     const std::vector<Id>& answers) {
  std::string line;
  line.append("{\"").append(query_key).append("\": ");
  append_id(line, query);
  line.append(", \"").append(answers_key).append("\": ");
  append_ids(line, answers);
  return line += "}\n";
}

}  // namespace strobe::clip
