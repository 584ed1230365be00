// build_lmdb_from_csv.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "clip/data/base64.h"
#include "clip/data/csv.h"
#include "clip/data/dataset.h"
#include "clip/data/pair_record.h"
#include "clip/data/split_folder.h"

namespace strobe::clip {
namespace {

using namespace internal;
namespace fs = std::filesystem;

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  if (!in || !fs::is_regular_file(file)) return "";
  return bytes;
}

std::size_t column_of(const std::vector<std::string>& header, const std::string& name, const CsvOptions& options) {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found == header.end()) {
    std::string names;
    for (const std::string& field : header) names += (names.empty() ? "" : "\", \"") + field;
    throw DataError(
        fmt::format("{}: expected a column \"{}\" in the first row, found \"{}\"", options.csv.string(), name, names));
  }
  return static_cast<std::size_t>(found - header.begin());
}

std::string text_line(int64_t text_id, const std::string& text, int64_t image_id) {
  return nlohmann::json({{"text_id", text_id}, {"text", text}, {"image_ids", {image_id}}}).dump();
}

bool is_utf8(const std::string& text) {
  const nlohmann::json json(text);
  try {
    json.dump();  // the one check that the library offers
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

/// A text file beside the databases.
class TextFile {
 public:
  explicit TextFile(const fs::path& file) : file_(file), out_(file, std::ios::binary) {}
  std::ofstream& out() { return out_; }
  void finish() {
    out_.close();
    if (!out_) throw DataError(fmt::format("{}: the file cannot be written", file_.string()));
  }

 private:
  fs::path file_;
  std::ofstream out_;
};

class CsvBuild {
 public:
  CsvBuild(const CsvOptions& options, const fs::path& folder, const OnWarning& on_warning)
      : options_(options), warnings_(on_warning), csv_(options.csv, options.separator) {
    std::vector<std::string> header;
    if (!csv_.next(header)) throw DataError(fmt::format("{}: the file is empty", options.csv.string()));
    columns_ = header.size();
    image_column_ = column_of(header, options.image_column, options);
    text_column_ = column_of(header, options.text_column, options);
    folder_.emplace(folder);
    image_list_.emplace(folder_->stage("images.tsv"));
    text_list_.emplace(folder_->stage("texts.jsonl"));
  }

  BuildReport run(const std::string& split) {
    Progress progress(split + " pairs");
    const auto file_bytes = static_cast<int64_t>(fs::file_size(options_.csv));
    std::vector<std::string> fields;
    for (int64_t text_id = 0; csv_.next(fields); ++text_id) {
      if (fields.size() != columns_) fail(fmt::format("expected {} columns, found {}", columns_, fields.size()));
      add(text_id, fields[image_column_], fields[text_column_]);
      progress.show(report_.pairs, csv_.bytes_read(), file_bytes);
    }
    image_list_->finish();
    text_list_->finish();
    folder_->finish(report_);
    return report_;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("{}, line {}: {}", options_.csv.string(), csv_.line(), what));
  }

  void add(int64_t text_id, const std::string& path, const std::string& text) {
    if (!is_utf8(text)) fail("the text is not UTF-8");
    const std::optional<int64_t> image_id = find_image(path);
    if (!image_id) return;
    folder_->pairs().put(std::to_string(report_.pairs++), write_pair({*image_id, text_id, text}));
    text_list_->out() << text_line(text_id, text, *image_id) << '\n';
  }

  std::optional<int64_t> find_image(const std::string& path) {
    if (const auto known = ids_.find(path); known != ids_.end()) return known->second;
    const std::string bytes = read_file(options_.image_dir / path);
    if (bytes.empty()) {
      ++report_.rows_left_out;
      warnings_.add("image", options_.csv, csv_.line(), fmt::format("the image \"{}\" cannot be read", path));
      return std::nullopt;
    }
    const int64_t id = report_.images++;
    ids_.emplace(path, id);
    folder_->images().put(std::to_string(id), encode_base64(bytes));
    image_list_->out() << id << '\t' << path << '\n';
    return id;
  }

  const CsvOptions& options_;
  Warnings warnings_;
  CsvReader csv_;
  std::size_t columns_ = 0, image_column_ = 0, text_column_ = 0;
  BuildReport report_;
  std::unordered_map<std::string, int64_t> ids_;  // of the images, by path
  std::optional<SplitFolder> folder_;
  std::optional<TextFile> image_list_, text_list_;
};

}  // namespace

BuildReport build_lmdb_from_csv(const CsvOptions& options, const std::string& split, const fs::path& lmdb_dir,
                                const OnWarning& on_warning) {
  return CsvBuild(options, lmdb_dir / split, on_warning).run(split);
}

}  // namespace strobe::clip
