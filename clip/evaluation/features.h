// Feature files: a line {"image_id": id, "feature": [...]} or {"text_id": ...} each, as cn_clip's extract_features.py
// writes them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "clip/data/lines.h"
#include "clip/evaluation/id.h"

namespace strobe::clip {

struct Features {
  std::vector<Id> ids;
  at::Tensor values;  // fp32 [ids.size(), dim] on the CPU
};

/// Reads in pieces: files of large data sets have gigabytes. Throws strobe::Error with file and line where a line is no
/// such object, a number is not finite or the lengths differ.
class FeatureReader {
 public:
  /// `id_key`: "image_id" or "text_id".
  FeatureReader(const std::filesystem::path& file, std::string id_key);

  /// Nothing at the end of the file.
  std::optional<Features> read(int64_t most_rows);
  Features read_all();

  int64_t bytes_read() const { return lines_.bytes_read(); }
  int64_t file_bytes() const { return lines_.file_bytes(); }

 private:
  LineReader lines_;
  std::string id_key_;
  std::size_t dim_ = 0;  // 0: not known yet
};

/// One line of such a file. `values` are written as the fp64 that equals them.
void append_feature_line(std::string& out, std::string_view id_key, const Id& id, const float* values, int64_t dim);

}  // namespace strobe::clip
