// What a search found, as one picture to look at.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "clip/image/image.h"

namespace strobe::clip {

struct SheetOptions {
  std::filesystem::path predictions;  // {"text_id", "image_ids"} a line, as make-topk writes them
  std::filesystem::path images;       // the LMDB of images that the ids are of
  std::filesystem::path texts;        // the queries, {"text_id", "text"} a line; empty: rows are named by their ids
  std::filesystem::path output;       // a PNG file
  int64_t columns = 5;                // the best so many of each query
  int side = 96;                      // pixels a picture
};

/// A row from the top for each query in the order of the predictions, the best picture on the left, pictures squashed
/// to squares as the model sees them; grey where one is missing or cannot be decoded. Tells `on_row` what each row is
/// of. Throws strobe::Error for files that cannot be read or written.
void write_picture_sheet(
    const SheetOptions& options,
    const std::function<void(const std::string& query, const std::vector<std::string>& ids)>& on_row);

}  // namespace strobe::clip
