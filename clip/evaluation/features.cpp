#include "clip/evaluation/features.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "clip/evaluation/feature_line.h"
#include "clip/evaluation/python_json.h"
#include "strobe/types.h"

namespace strobe::clip {

FeatureReader::FeatureReader(const std::filesystem::path& file, std::string id_key)
    : lines_(file), id_key_(std::move(id_key)) {}

std::optional<Features> FeatureReader::read(int64_t most_rows) {
  Features features;
  std::vector<float> values;
  const auto fail = [&](const std::string& what) {
    throw Error(lines_.file().string() + ", line " + std::to_string(lines_.number()) + ": " + what);
  };
  while (static_cast<int64_t>(features.ids.size()) < most_rows && lines_.next()) {
    const std::size_t before = values.size();
    try {
      features.ids.push_back(internal::parse_feature_line(lines_.text(), id_key_, values));
    } catch (const std::runtime_error& error) {
      fail(error.what());
    }
    const std::size_t dim = values.size() - before;
    if (dim == 0) fail("the feature is empty");
    if (dim_ != 0 && dim != dim_) {
      fail("expected " + std::to_string(dim_) + " numbers as before, found " + std::to_string(dim));
    }
    dim_ = dim;
  }
  if (features.ids.empty()) return std::nullopt;
  features.values = at::empty({static_cast<int64_t>(features.ids.size()), static_cast<int64_t>(dim_)}, at::kFloat);
  std::copy(values.begin(), values.end(), features.values.mutable_data_ptr<float>());
  return features;
}

Features FeatureReader::read_all() {
  std::optional<Features> features = read(std::numeric_limits<int64_t>::max());
  if (!features) throw Error(lines_.file().string() + ": expected features, found no line");
  return *std::move(features);
}

void append_feature_line(std::string& out, std::string_view id_key, const Id& id, const float* values, int64_t dim) {
  out.append("{\"").append(id_key).append("\": ");
  append_id(out, id);
  out += ", \"feature\": [";
  for (int64_t i = 0; i < dim; ++i) {
    if (i > 0) out += ", ";
    append_float(out, static_cast<double>(values[i]));
  }
  out += "]}\n";
}

}  // namespace strobe::clip
