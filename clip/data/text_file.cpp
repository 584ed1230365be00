// Reading {split}_texts.jsonl.
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "clip/data/dataset.h"

namespace strobe::clip {
namespace {

using Json = nlohmann::json;

[[noreturn]] void fail(const LineReader& lines, const std::string& what) {
  throw DataError(fmt::format("{}, line {}: {}", lines.file().string(), lines.number(), what));
}

train::Value id_of(const Json& json, const LineReader& lines) {
  switch (json.type()) {
    case Json::value_t::string:
      return train::Value(json.get<std::string>());
    case Json::value_t::boolean:
      return train::Value(json.get<bool>());
    case Json::value_t::null:
      return train::Value();
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) fail(lines, "an id is larger than 2^63 - 1");
      return train::Value(json.get<int64_t>());
    case Json::value_t::number_integer:
      return train::Value(json.get<int64_t>());
    case Json::value_t::number_float:  // also integers that are too long for the parser
      if (std::abs(json.get<double>()) >= 0x1p63) fail(lines, "an id does not fit in 64 bits");
      return train::Value(json.get<double>());
    default:
      fail(lines, fmt::format("an id is a {}", json.type_name()));
  }
}

std::string text_of(const Json& json, const LineReader& lines) {
  if (!json.is_string()) fail(lines, fmt::format("expected a string as \"text\", found a {}", json.type_name()));
  return json.get<std::string>();
}

}  // namespace

TextRecord parse_text(const LineReader& lines, bool require_images) {
  const Json json = Json::parse(lines.text(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail(lines, "expected a JSON object");
  for (const char* field : {"text_id", "text", "image_ids"}) {
    if (!json.contains(field) && (require_images || std::string_view(field) != "image_ids")) {
      fail(lines, fmt::format("the field \"{}\" is missing", field));
    }
  }
  TextRecord record{id_of(json["text_id"], lines), text_of(json["text"], lines), {}};
  if (!json.contains("image_ids")) return record;
  const Json& ids = json["image_ids"];
  if (!ids.is_array()) fail(lines, fmt::format("expected a list as \"image_ids\", found a {}", ids.type_name()));
  for (const Json& id : ids) record.image_ids.push_back(id_of(id, lines));
  return record;
}

void read_texts(const std::filesystem::path& jsonl, bool require_images,
                const std::function<void(TextRecord&& record, int64_t line)>& visit) {
  LineReader lines(jsonl);
  while (lines.next()) visit(parse_text(lines, require_images), lines.number());
}

std::vector<TextRecord> read_texts(const std::filesystem::path& jsonl) {
  std::vector<TextRecord> records;
  read_texts(jsonl, /*require_images=*/false,
             [&](TextRecord&& record, int64_t) { records.push_back(std::move(record)); });
  return records;
}

}  // namespace strobe::clip
