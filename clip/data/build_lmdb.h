// Makes the LMDB databases of a split, byte for byte what Chinese-CLIP's build_lmdb_dataset.py reads and writes: imgs
// maps str(image_id) to base64 text, pairs numbers the pickled (image_id, text_id, text).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "clip/data/error.h"

namespace strobe::clip {

struct BuildReport {
  int64_t images = 0;               // different ids
  int64_t duplicate_images = 0;     // lines whose id came before; the last one counts
  int64_t broken_images = 0;        // whose text is no base64; kept, as the trainers skip them
  int64_t pairs = 0;                // one for each image of each text
  int64_t pairs_without_image = 0;  // kept, as the trainers skip them
  int64_t rows_left_out = 0;        // of a CSV file: whose image cannot be read
};

/// Told of what is wrong but does not stop the build: the file and line and what it is. At most some ten a kind.
using OnWarning = std::function<void(const std::string& text)>;

/// From data_dir/{split}_imgs.tsv (image_id TAB base64) and data_dir/{split}_texts.jsonl ("text_id", "text",
/// "image_ids") into lmdb_dir/{split}/imgs and /pairs. What was there before is replaced, nothing of it stays, and it
/// is replaced only when the new is whole. Shows a progress line. Throws DataError with the file and line.
BuildReport build_lmdb(const std::filesystem::path& data_dir, const std::string& split,
                       const std::filesystem::path& lmdb_dir, const OnWarning& on_warning = {});

struct CsvOptions {
  std::filesystem::path csv;        // its first row names the columns
  std::filesystem::path image_dir;  // what relative image paths start from
  std::string image_column = "filepath";
  std::string text_column = "title";
  char separator = ',';
};

/// The same from a CSV file: images get the ids 0, 1, ... in the order of their first row, texts those of their rows.
/// Beside the databases it writes lmdb_dir/{split}/images.tsv (id TAB path) and texts.jsonl, which evaluation reads.
BuildReport build_lmdb_from_csv(const CsvOptions& options, const std::string& split,
                                const std::filesystem::path& lmdb_dir, const OnWarning& on_warning = {});

}  // namespace strobe::clip
