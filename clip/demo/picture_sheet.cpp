#include "clip/demo/picture_sheet.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "clip/data/base64.h"
#include "clip/data/dataset.h"
#include "clip/data/lmdb.h"
#include "clip/demo/picture.h"
#include "train/atomic_file.h"

namespace strobe::clip {
namespace {

constexpr Rgb kPaper{255, 255, 255}, kMissing{160, 160, 160};
constexpr int kGap = 4;            // pixels between pictures
constexpr int64_t kMaxRows = 500;  // a sheet is for looking at

struct Row {
  std::string query;
  std::vector<std::string> ids;
};

std::map<std::string, std::string> read_queries(const std::filesystem::path& file) {
  std::map<std::string, std::string> queries;
  if (file.empty()) return queries;
  read_texts(file, /*require_images=*/false,
             [&](TextRecord&& record, int64_t) { queries[id_text(record.text_id)] = std::move(record.text); });
  return queries;
}

std::string text_of(const nlohmann::json& id) { return id.is_string() ? id.get<std::string>() : id.dump(); }

std::vector<Row> read_rows(const SheetOptions& options) {
  const std::map<std::string, std::string> queries = read_queries(options.texts);
  std::ifstream in(options.predictions);
  if (!in) throw Error("picture sheet: " + options.predictions.string() + ": cannot be read");
  std::vector<Row> rows;
  for (std::string line; std::getline(in, line) && static_cast<int64_t>(rows.size()) < kMaxRows;) {
    const nlohmann::json prediction = nlohmann::json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
    const auto ids = prediction.is_object() ? prediction.find("image_ids") : prediction.end();
    if (!prediction.is_object() || ids == prediction.end() || !ids->is_array() || !prediction.contains("text_id")) {
      throw Error("picture sheet: " + options.predictions.string() + ", line " + std::to_string(rows.size() + 1) +
                  R"(: expected {"text_id", "image_ids"})");
    }
    Row row{text_of(prediction["text_id"]), {}};
    if (const auto query = queries.find(row.query); query != queries.end()) row.query = query->second;
    for (const nlohmann::json& id : *ids) {
      if (static_cast<int64_t>(row.ids.size()) == options.columns) break;
      row.ids.push_back(text_of(id));
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty()) throw Error("picture sheet: " + options.predictions.string() + ": it holds no predictions");
  return rows;
}

Image square(const LmdbReader& images, const std::string& id, int side) {
  const std::optional<std::string> text = images.get(id);
  const std::optional<std::string> bytes = text ? decode_base64(*text) : std::nullopt;
  try {
    if (!bytes) return blank_picture(side, side, kMissing);
    const Image image = decode_image(*bytes);
    return to_rgb(resize(image, {0, 0, image.width, image.height}, side, side));
  } catch (const ImageError&) {
    return blank_picture(side, side, kMissing);
  }
}

}  // namespace

void write_picture_sheet(
    const SheetOptions& options,
    const std::function<void(const std::string& query, const std::vector<std::string>& ids)>& on_row) {
  const std::vector<Row> rows = read_rows(options);
  const LmdbReader images(options.images);
  const int step = options.side + kGap;
  const auto columns = static_cast<int>(options.columns);
  Image sheet = blank_picture(columns * step + kGap, static_cast<int>(rows.size()) * step + kGap, kPaper);
  for (std::size_t y = 0; y < rows.size(); ++y) {
    for (std::size_t x = 0; x < rows[y].ids.size(); ++x) {
      paste(sheet, square(images, rows[y].ids[x], options.side), static_cast<int>(x) * step + kGap,
            static_cast<int>(y) * step + kGap);
    }
    on_row(rows[y].query, rows[y].ids);
  }
  train::write_atomically(options.output, [&](train::AtomicFile& file) { file.write(encode_png(sheet)); });
}

}  // namespace strobe::clip
