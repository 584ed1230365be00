#include "clip/data/build_lmdb.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "clip/data/base64.h"
#include "clip/data/csv.h"
#include "clip/data/dataset.h"
#include "clip/data/lines.h"
#include "clip/data/lmdb.h"
#include "clip/data/pair_record.h"
#include "train/progress.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxWarnings = 10;  // of a kind

/// Passes on the first warnings of each kind.
class Warnings {
 public:
  explicit Warnings(OnWarning on_warning) : on_warning_(std::move(on_warning)) {}

  void add(const char* kind, const fs::path& file, int64_t line, const std::string& what) {
    if (++counts_[kind] <= kMaxWarnings && on_warning_) {
      on_warning_(fmt::format("{}, line {}: {}", file.string(), line, what));
    }
  }

 private:
  OnWarning on_warning_;
  std::map<std::string, int> counts_;
};

/// "train images: 12000, 3456/s, 0:42 left".
class Progress {
 public:
  explicit Progress(std::string what) : what_(std::move(what)) {}

  void show(int64_t count, int64_t bytes, int64_t total_bytes) {
    if (!line_.due()) return;
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    if (seconds <= 0 || bytes <= 0) return;
    const double left =
        seconds * static_cast<double>(std::max<int64_t>(total_bytes - bytes, 0)) / static_cast<double>(bytes);
    line_.show(fmt::format("{}: {}, {:.0f}/s, {} left", what_, count, static_cast<double>(count) / seconds,
                           train::format_duration(left)));
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  Clock::time_point start_ = Clock::now();
  train::ProgressLine line_;
};

/// A split's folder while its databases are made beside the old ones.
class SplitFolder {
 public:
  explicit SplitFolder(const fs::path& folder) : folder_(folder) {
    fs::create_directories(folder);
    for (const char* name : {"imgs", "pairs"}) fs::remove_all(part(name, ".building"));  // of an interrupted build
    images_ = std::make_unique<LmdbWriter>(part("imgs", ".building"));
    pairs_ = std::make_unique<LmdbWriter>(part("pairs", ".building"));
  }
  ~SplitFolder() {
    images_.reset();
    pairs_.reset();
    std::error_code ignored;
    for (const char* name : {"imgs", "pairs"}) fs::remove_all(part(name, ".building"), ignored);
  }
  SplitFolder(const SplitFolder&) = delete;
  SplitFolder& operator=(const SplitFolder&) = delete;

  LmdbWriter& images() { return *images_; }
  LmdbWriter& pairs() { return *pairs_; }

  void finish(const BuildReport& report) {
    images_->put("num_images", std::to_string(report.images));
    pairs_->put("num_samples", std::to_string(report.pairs));
    for (auto* writer : {&images_, &pairs_}) {
      (*writer)->finish();
      writer->reset();
    }
    for (const char* name : {"imgs", "pairs"}) {
      fs::remove_all(part(name, ".old"));
      if (fs::exists(part(name, ""))) fs::rename(part(name, ""), part(name, ".old"));
      fs::rename(part(name, ".building"), part(name, ""));
      fs::remove_all(part(name, ".old"));
    }
  }

 private:
  fs::path part(const char* name, const char* suffix) const { return folder_ / (std::string(name) + suffix); }

  fs::path folder_;
  std::unique_ptr<LmdbWriter> images_, pairs_;
};

std::string fail_text(const LineReader& lines, const std::string& what) {
  return fmt::format("{}, line {}: {}", lines.file().string(), lines.number(), what);
}

void read_images(const fs::path& file, const std::string& split, LmdbWriter& images, BuildReport& report,
                 Warnings& warnings) {
  LineReader lines(file);
  Progress progress(split + " images");
  while (lines.next()) {
    const std::string_view text = lines.text();
    const std::size_t tab = text.find('\t');
    if (tab == std::string_view::npos || text.find('\t', tab + 1) != std::string_view::npos) {
      throw DataError(fail_text(lines, "expected an image id, a tab and base64 text"));
    }
    const std::string_view id = text.substr(0, tab), base64 = text.substr(tab + 1);
    if (id.empty() || id.size() > kMaxLmdbKeyBytes || id == "num_images") {
      throw DataError(fail_text(lines, fmt::format("\"{}\" cannot be an image id: expected 1 to {} bytes, and not "
                                                   "num_images",
                                                   id.substr(0, 40), kMaxLmdbKeyBytes)));
    }
    if (const auto bytes = decode_base64(base64); !bytes || bytes->empty()) {
      ++report.broken_images;
      warnings.add("base64", file, lines.number(), fmt::format("image \"{}\" is no base64", id));
    }
    if (images.put(id, base64)) {
      ++report.images;
    } else {
      ++report.duplicate_images;
      warnings.add("duplicate", file, lines.number(), fmt::format("image \"{}\" came before and is replaced", id));
    }
    progress.show(report.images + report.duplicate_images, lines.bytes_read(), lines.file_bytes());
  }
}

void read_pairs(const fs::path& file, const std::string& split, SplitFolder& folder, BuildReport& report,
                Warnings& warnings) {
  Progress progress(split + " pairs");
  LineReader lines(file);
  while (lines.next()) {
    TextRecord record = parse_text(lines, /*require_images=*/true);
    Pair pair{{}, std::move(record.text_id), std::move(record.text)};
    for (train::Value& id : record.image_ids) {
      pair.image_id = std::move(id);
      if (const std::string key = id_text(pair.image_id); !folder.images().contains(key)) {
        ++report.pairs_without_image;
        warnings.add("missing", file, lines.number(), fmt::format("no image has the id \"{}\"", key));
      }
      folder.pairs().put(std::to_string(report.pairs++), write_pair(pair));
    }
    progress.show(report.pairs, lines.bytes_read(), lines.file_bytes());
  }
}

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

/// A new text file beside the databases.
std::ofstream create(const fs::path& file) {
  std::ofstream out(file, std::ios::binary);
  if (!out) throw DataError(fmt::format("{}: the file cannot be written", file.string()));
  return out;
}

}  // namespace

BuildReport build_lmdb(const fs::path& data_dir, const std::string& split, const fs::path& lmdb_dir,
                       const OnWarning& on_warning) {
  const fs::path images = data_dir / (split + "_imgs.tsv"), texts = data_dir / (split + "_texts.jsonl");
  for (const fs::path& file : {images, texts}) LineReader check(file);  // before anything is written
  Warnings warnings(on_warning);
  BuildReport report;
  SplitFolder folder(lmdb_dir / split);
  read_images(images, split, folder.images(), report, warnings);
  read_pairs(texts, split, folder, report, warnings);
  folder.finish(report);
  return report;
}

BuildReport build_lmdb_from_csv(const CsvOptions& options, const std::string& split, const fs::path& lmdb_dir,
                                const OnWarning& on_warning) {
  CsvReader csv(options.csv, options.separator);
  std::vector<std::string> fields;
  if (!csv.next(fields)) throw DataError(fmt::format("{}: the file is empty", options.csv.string()));
  const std::size_t columns = fields.size();
  const std::size_t image_column = column_of(fields, options.image_column, options);
  const std::size_t text_column = column_of(fields, options.text_column, options);

  Warnings warnings(on_warning);
  BuildReport report;
  const fs::path out = lmdb_dir / split;
  SplitFolder folder(out);
  std::ofstream image_list = create(out / "images.tsv"), text_list = create(out / "texts.jsonl");
  std::unordered_map<std::string, int64_t> ids;  // of the images, by path
  Progress progress(split + " pairs");
  const auto file_bytes = static_cast<int64_t>(fs::file_size(options.csv));
  for (int64_t text_id = 0; csv.next(fields); ++text_id) {
    if (fields.size() != columns) {
      throw DataError(fmt::format("{}, line {}: expected {} columns, found {}", options.csv.string(), csv.line(),
                                  columns, fields.size()));
    }
    const std::string& path = fields[image_column];
    auto known = ids.find(path);
    if (known == ids.end()) {
      const std::string bytes = read_file(options.image_dir / path);
      if (bytes.empty()) {
        ++report.rows_left_out;
        warnings.add("image", options.csv, csv.line(), fmt::format("the image \"{}\" cannot be read", path));
        continue;
      }
      known = ids.emplace(path, report.images++).first;
      folder.images().put(std::to_string(known->second), encode_base64(bytes));
      image_list << known->second << '\t' << path << '\n';
    }
    const std::string& text = fields[text_column];
    if (!is_utf8(text)) {
      throw DataError(fmt::format("{}, line {}: the text is not UTF-8", options.csv.string(), csv.line()));
    }
    folder.pairs().put(std::to_string(report.pairs++), write_pair({known->second, text_id, text}));
    text_list << text_line(text_id, text, known->second) << '\n';
    progress.show(report.pairs, csv.bytes_read(), file_bytes);
  }
  if (!image_list.flush() || !text_list.flush()) throw DataError(fmt::format("{}: writing failed", out.string()));
  folder.finish(report);
  return report;
}

}  // namespace strobe::clip
