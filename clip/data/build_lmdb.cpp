#include "clip/data/build_lmdb.h"

#include <fmt/format.h>

#include <string_view>

#include "clip/data/base64.h"
#include "clip/data/dataset.h"
#include "clip/data/pair_record.h"
#include "clip/data/split_folder.h"

namespace strobe::clip {
namespace {

using namespace internal;
namespace fs = std::filesystem;

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

}  // namespace strobe::clip
