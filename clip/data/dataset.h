// Chinese-CLIP's data folders: {split}/imgs maps image ids to base64 text, {split}/pairs numbers the pairs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clip/data/error.h"
#include "clip/data/lines.h"
#include "clip/data/lmdb.h"
#include "train/value.h"

namespace strobe::clip {

/// An id is an int, str, float, bool or None, as it was in the annotations.
struct Pair {
  train::Value image_id;
  train::Value text_id;
  std::string text;
};

/// Python's str(id): the key of an image.
std::string id_text(const train::Value& id);

/// The pairs of one split and their images. Readers of any number of threads may share it.
class PairDataset {
 public:
  /// The folder that holds imgs/ and pairs/. Throws DataError.
  explicit PairDataset(const std::filesystem::path& folder);

  int64_t num_pairs() const { return num_pairs_; }
  int64_t num_images() const { return num_images_; }  // as the database says

  /// Both throw DataError naming the key. The image's bytes as they were before base64.
  Pair pair(int64_t index) const;
  std::string image(const Pair& pair) const;

 private:
  LmdbReader pairs_;
  LmdbReader images_;
  int64_t num_pairs_ = 0;
  int64_t num_images_ = 0;
};

/// The images of an imgs/ database in the order of its keys (of their bytes: 1, 10, 11, 2), as many as there really
/// are. Readers of any number of threads may share it.
class ImageDataset {
 public:
  explicit ImageDataset(const std::filesystem::path& folder);

  int64_t size() const { return static_cast<int64_t>(keys_.size()); }
  /// What the database claims, which an older builder may have counted wrongly; -1: nothing.
  int64_t claimed_size() const { return claimed_size_; }
  const std::string& key(int64_t index) const { return keys_[static_cast<std::size_t>(index)]; }
  std::string image(int64_t index) const;  // throws DataError naming the key

 private:
  LmdbReader images_;
  std::vector<std::string> keys_;
  int64_t claimed_size_ = -1;
};

/// A line of {split}_texts.jsonl.
struct TextRecord {
  train::Value text_id;
  std::string text;
  std::vector<train::Value> image_ids;
};

/// All lines in order, or each through `visit` with its line number (from 1). "image_ids" may be missing where only
/// texts are wanted. Throws DataError with the line.
std::vector<TextRecord> read_texts(const std::filesystem::path& jsonl);
void read_texts(const std::filesystem::path& jsonl, bool require_images,
                const std::function<void(TextRecord&& record, int64_t line)>& visit);

/// The line at which the reader stands.
TextRecord parse_text(const LineReader& lines, bool require_images);

}  // namespace strobe::clip
