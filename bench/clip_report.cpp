#include "bench/clip_report.h"

#include <algorithm>

#include "bench/profile_report.h"
#include "bench/report.h"
#include "train/environment.h"

namespace strobe::bench {
namespace {

using Status = ContenderResult::Status;

constexpr const char* kBaseline = "dotscale";

std::string reason(const ClipRow& row) { return row.status == Status::kOutOfMemory ? "oom" : row.why; }

/// The median time of the row of this type and number of GPUs, over that of `row`; 0: unknown.
double ratio_to(const std::vector<ClipRow>& rows, const ClipRow& row, const std::string& attn_type, int64_t gpus) {
  if (row.status != Status::kMeasured || (row.attn_type == attn_type && row.gpus == gpus)) return 0.0;
  const auto other = std::find_if(rows.begin(), rows.end(), [&](const ClipRow& each) {
    return each.size == row.size && each.attn_type == attn_type && each.gpus == gpus &&
           each.status == Status::kMeasured;
  });
  return other == rows.end() ? 0.0 : median(other->ms) / median(row.ms);
}

double speed_up(const std::vector<ClipRow>& rows, const ClipRow& row) {
  return ratio_to(rows, row, kBaseline, row.gpus);
}

/// Each GPU has its batch, however many there are: the best is 1.
double efficiency(const std::vector<ClipRow>& rows, const ClipRow& row) {
  return ratio_to(rows, row, row.attn_type, 1);
}

std::string cells(const std::vector<ClipRow>& rows, const ClipRow& row) {
  if (row.status != Status::kMeasured) return "n/a";
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  std::string text = format("%10.2f %10.2f %10.2f", median(row.ms), *least, *most);
  text += row.peak_gib ? format(" %9.2f", *row.peak_gib) : format(" %9s", "");
  const double faster = speed_up(rows, row), efficient = efficiency(rows, row);
  text += faster > 0.0 ? format(" %8.2fx", faster) : format(" %9s", "");
  if (efficient > 0.0) text += format(" %9.1f%%", 100.0 * efficient);
  return text;
}

std::string profiles(const std::vector<ClipRow>& rows) {
  std::string lines;
  for (const ClipRow& row : rows) {
    if (row.profile) lines += profile_line(row.attn_type, *row.profile);
  }
  return lines.empty() ? lines : profile_header() + lines;
}

nlohmann::ordered_json json_row(const std::vector<ClipRow>& rows, const ClipRow& row) {
  nlohmann::ordered_json json = {{"size", row.size},           {"batch", row.batch}, {"gpus", row.gpus},
                                 {"attn_type", row.attn_type}, {"ms", nullptr},      {"ms_min", nullptr},
                                 {"ms_max", nullptr},          {"peak_gib", nullptr}};
  if (row.status != Status::kMeasured) {
    json["error"] = reason(row);
    return json;
  }
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  json["ms"] = median(row.ms);
  json["ms_min"] = *least;
  json["ms_max"] = *most;
  if (row.peak_gib) json["peak_gib"] = *row.peak_gib;
  if (row.loss) json["loss"] = *row.loss;
  if (const double efficient = efficiency(rows, row); efficient > 0.0) json["efficiency"] = efficient;
  if (row.profile) json["profile"] = to_json(*row.profile);
  return json;
}

}  // namespace

std::string table_header(const ClipBenchOptions& options) {
  return machine_line(options.device) + train::precision_name(options.settings.precision) +
         "\n"
         "ms of a training step: median, least, most over the repetitions. peak GiB: the most that torch's allocator "
         "held at "
         "once, weights\nand optimiser included. speed-up: against dotscale, the materialised attention. efficiency: "
         "against one GPU at\nwork alone, with the same batch a GPU.\n";
}

std::string table(const std::vector<ClipRow>& rows) {
  if (rows.empty()) return "";
  const ClipRow& first = rows.front();
  std::string text = format("\n%s, batch %ld a GPU\n", first.size.c_str(), first.batch);
  text += format("  %-16s %4s %10s %10s %10s %9s %9s %10s\n", "", "GPUs", "ms", "least", "most", "peak GiB", "speed-up",
                 "efficiency");
  std::string reasons;
  for (const ClipRow& row : rows) {
    text += format("  %-16s %4ld ", row.attn_type.c_str(), row.gpus) + cells(rows, row) + '\n';
    if (row.status != Status::kMeasured) reasons += "  " + row.attn_type + ": " + reason(row) + '\n';
  }
  return text + profiles(rows) + reasons;
}

nlohmann::ordered_json to_json(const std::vector<ClipRow>& rows, const nlohmann::ordered_json& peer_versions,
                               const ClipBenchOptions& options, const std::string& command) {
  nlohmann::ordered_json json = {{"what", "clip"},
                                 {"commit", train::commit()},
                                 {"device", device_text(options.device)},
                                 {"torch", train::torch_version()},
                                 {"versions", peer_versions},
                                 {"command", command},
                                 {"precision", train::precision_name(options.settings.precision)},
                                 {"rows", nlohmann::ordered_json::array()}};
  for (const ClipRow& row : rows) json["rows"].push_back(json_row(rows, row));
  return json;
}

}  // namespace strobe::bench
