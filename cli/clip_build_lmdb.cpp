// strobe clip build-lmdb: from annotation files or a CSV file to the databases that training reads.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "clip/data/build_lmdb.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path data_dir;
  std::optional<std::filesystem::path> lmdb_dir;
  std::vector<std::string> splits;
  clip::CsvOptions csv;
  std::string separator = ",";
};

/// In the order given, each once.
std::vector<std::string> distinct(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (name.empty() || name.find('/') != std::string::npos) {
      throw CLI::ValidationError("--splits", "expected names such as train,valid,test, found \"" + name + "\"");
    }
    if (seen.insert(name).second) out.push_back(name);
  }
  return out;
}

void warn(const std::string& text) { std::fprintf(stderr, "warning: %s\n", text.c_str()); }

void count(int64_t number, const char* what) {
  if (number > 0) std::printf("%lld %s\n", static_cast<long long>(number), what);
}

void print(const clip::BuildReport& report, const std::string& split, const std::filesystem::path& folder) {
  const auto line = [&](int64_t number, const char* what, const char* name) {
    std::printf("Finished serializing %lld %s split %s into %s.\n", static_cast<long long>(number), split.c_str(), what,
                (folder / name).string().c_str());
  };
  line(report.pairs, "pairs", "pairs");
  line(report.images, "images", "imgs");
  count(report.duplicate_images, "lines repeated the id of an image before; the last one counts");
  count(report.broken_images, "images are no base64; training will skip them");
  count(report.pairs_without_image, "pairs name an image that is not there; training will skip them");
  count(report.rows_left_out, "rows were left out, their image could not be read");
  std::fflush(stdout);
}

void run(const Arguments& a) {
  const std::vector<std::string> splits = distinct(a.splits);
  const std::filesystem::path lmdb_dir = a.lmdb_dir.value_or(a.data_dir / "lmdb");
  if (a.csv.csv.empty()) {
    if (a.data_dir.empty()) throw CLI::RequiredError("--data_dir or --csv");
    for (const std::string& split : splits) {
      print(clip::build_lmdb(a.data_dir, split, lmdb_dir, warn), split, lmdb_dir / split);
    }
    return;
  }
  if (splits.size() != 1) throw CLI::ValidationError("--splits", "expected one name beside --csv");
  if (a.data_dir.empty() && !a.lmdb_dir) throw CLI::RequiredError("--lmdb_dir");
  clip::CsvOptions options = a.csv;
  options.separator = a.separator == "\\t" ? '\t' : a.separator[0];
  print(clip::build_lmdb_from_csv(options, splits[0], lmdb_dir, warn), splits[0], lmdb_dir / splits[0]);
}

void add_csv(CLI::App& command, Arguments& a) {
  constexpr char kGroup[] = "From a CSV file";
  CLI::Option* csv = command
                         .add_option("--csv", a.csv.csv,
                                     "One row a pair: the path of an image, a text; the first row "
                                     "names the columns")
                         ->type_name("FILE")
                         ->group(kGroup);
  const auto option = [&](const char* name, auto& value, const char* what) {
    return command.add_option(name, value, what)->needs(csv)->capture_default_str()->group(kGroup);
  };
  option("--image-dir,--image_dir", a.csv.image_dir, "Where relative paths of images start")->type_name("DIR");
  option("--image-column,--image_column", a.csv.image_column, "The column of the paths");
  option("--text-column,--text_column", a.csv.text_column, "The column of the texts");
  option("--csv-separator,--csv_separator", a.separator, "One character, or \\t")->check([](const std::string& text) {
    return text.size() == 1 || text == "\\t" ? "" : "expected one character";
  });
}

}  // namespace

void add_clip_build_lmdb(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("build-lmdb", "Make the LMDB databases of a data set's splits");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--data_dir,--data-dir", a->data_dir, "Where {split}_imgs.tsv and {split}_texts.jsonl are")
      ->type_name("DIR");
  command->add_option("--splits", a->splits, "Names of the splits, such as train,valid,test")
      ->delimiter(',')
      ->required();
  command->add_option("--lmdb_dir,--lmdb-dir", a->lmdb_dir, "Where the databases go [DATA_DIR/lmdb]")->type_name("DIR");
  add_csv(*command, *a);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
