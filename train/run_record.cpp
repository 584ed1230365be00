#include "train/run_record.h"

#include <ATen/Parallel.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "strobe/types.h"
#include "train/environment.h"
#include "train/file_hash.h"

namespace strobe::train {
namespace {

using Json = nlohmann::ordered_json;

void replace_file(const std::filesystem::path& file, const std::string& content) {
  std::filesystem::path temporary = file;
  temporary += ".tmp";
  std::ofstream out(temporary, std::ios::binary);
  out << content;
  out.close();
  std::error_code failed;
  if (out) std::filesystem::rename(temporary, file, failed);
  if (!out || failed) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw Error("run record: " + file.string() + " cannot be written" + (failed ? ": " + failed.message() : ""));
  }
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

Json describe(const RunRecord& record) {
  Json files = Json::object();
  for (const std::filesystem::path& file : record.files) {
    files[file.string()] = {{"bytes", std::filesystem::file_size(file)}, {"sha1", file_hash(file)}};
  }
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return {{"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))},
          {"command", record.command},
          {"directory", std::filesystem::current_path().string()},
          {"resumed_from", record.resumed_from.empty() ? Json(nullptr) : Json(record.resumed_from.string())},
          {"versions",
           {{"strobe", version()}, {"commit", commit()}, {"torch", torch_version()}, {"compiler", compiler_version()}}},
          {"machine",
           {{"host", host_name()},
            {"device", device_name(record.device)},
            {"threads", at::get_num_threads()},
            {"instruction_sets", instruction_sets()}}},
          {"files", std::move(files)}};
}

/// The runs that the folder already tells of.
Json earlier_runs(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) return Json::array();
  const Json content = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!content.is_object() || !content.contains("runs") || !content["runs"].is_array()) {
    throw Error("run record: " + file.string() + " is not what a run wrote: expected {\"runs\": [...]}");
  }
  return content["runs"];
}

}  // namespace

void write_run_record(const std::filesystem::path& folder, const RunRecord& record) {
  std::filesystem::create_directories(folder);
  const std::filesystem::path file = folder / "run.json";
  Json runs = record.resumed_from.empty() ? Json::array() : earlier_runs(file);
  runs.push_back(describe(record));
  replace_file(file, Json{{"runs", std::move(runs)}}.dump(2) + "\n");
  replace_file(folder / "config.toml", record.configuration);
}

}  // namespace strobe::train
