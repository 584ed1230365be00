#include "clip/data/dataset.h"

#include <fmt/format.h>

#include <charconv>

#include "clip/data/base64.h"
#include "clip/data/pair_record.h"

namespace strobe::clip {
namespace {

constexpr std::string_view kNumSamples = "num_samples";
constexpr std::string_view kNumImages = "num_images";

/// A count that the builder has stored; -1: none, or no number.
int64_t read_count(const LmdbReader& database, std::string_view key) {
  const std::string text = database.get(key).value_or("");
  int64_t count = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  return error == std::errc() && end == text.data() + text.size() ? count : -1;
}

std::string read_image(const LmdbReader& database, const std::string& key) {
  const std::optional<std::string> text = database.get(key);
  if (!text) throw DataError(fmt::format("{}: no image has the key \"{}\"", database.folder().string(), key));
  std::optional<std::string> bytes = decode_base64(*text);
  if (!bytes) throw DataError(fmt::format("{}: image \"{}\" is no base64", database.folder().string(), key));
  return *std::move(bytes);
}

std::filesystem::path part(const std::filesystem::path& folder, const char* name) {
  if (!std::filesystem::is_directory(folder)) {
    throw DataError(
        fmt::format("{}: expected a folder with imgs/ and pairs/ (strobe clip build-lmdb makes it)", folder.string()));
  }
  return folder / name;
}

/// Python's repr(float).
std::string float_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string id_text(const train::Value& id) {
  if (const auto* text = std::get_if<std::string>(&id.data)) return *text;
  if (const auto* number = std::get_if<int64_t>(&id.data)) return std::to_string(*number);
  if (const auto* number = std::get_if<double>(&id.data)) return float_text(*number);
  if (const auto* truth = std::get_if<bool>(&id.data)) return *truth ? "True" : "False";
  if (id.is_none()) return "None";
  throw DataError(fmt::format("a {} is no id", id.type_name()));
}

PairDataset::PairDataset(const std::filesystem::path& folder)
    : pairs_(part(folder, "pairs")),
      images_(part(folder, "imgs")),
      num_pairs_(read_count(pairs_, kNumSamples)),
      num_images_(read_count(images_, kNumImages)) {
  if (num_pairs_ < 0) throw DataError(fmt::format("{}: expected a count as num_samples", pairs_.folder().string()));
}

Pair PairDataset::pair(int64_t index) const {
  const std::string key = std::to_string(index);
  const std::optional<std::string> record = pairs_.get(key);
  if (!record) throw DataError(fmt::format("{}: no pair has the key \"{}\"", pairs_.folder().string(), key));
  try {
    return read_pair(*record);
  } catch (const DataError& error) {
    throw DataError(fmt::format("{}: key \"{}\": {}", pairs_.folder().string(), key, error.what()));
  }
}

std::string PairDataset::image(const Pair& pair) const { return read_image(images_, id_text(pair.image_id)); }

ImageDataset::ImageDataset(const std::filesystem::path& folder)
    : images_(folder), claimed_size_(read_count(images_, kNumImages)) {
  images_.visit_keys([this](std::string_view key) {
    if (key != kNumImages) keys_.emplace_back(key);
  });
}

std::string ImageDataset::image(int64_t index) const { return read_image(images_, key(index)); }

}  // namespace strobe::clip
