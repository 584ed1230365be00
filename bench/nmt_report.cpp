#include "bench/nmt_report.h"

#include <algorithm>

#include "bench/machine.h"
#include "bench/profile_report.h"
#include "bench/report.h"

namespace strobe::bench {
namespace {

using Status = ContenderResult::Status;

double tokens_per_second(const NmtRow& row) { return 1e3 * row.tokens / median(row.ms); }

std::string reason(const NmtRow& row) { return row.status == Status::kOutOfMemory ? "oom" : row.why; }

std::string cells(const NmtRow& row) {
  if (row.status != Status::kMeasured) return "n/a";
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  std::string text = format("%10.3f %10.3f %10.3f %11.0f", median(row.ms), *least, *most, tokens_per_second(row));
  text += row.peak_mib ? format(" %9.1f", *row.peak_mib) : format(" %9s", "");
  if (row.agreement) text += format("  %5.1f %%", 100.0 * *row.agreement);
  return text;
}

nlohmann::ordered_json json_row(const NmtRow& row, const std::string& device) {
  nlohmann::ordered_json json = {
      {"task", row.task},   {"attn_type", row.attn_type}, {"device", device},        {"data", row.data},
      {"batch", row.batch}, {"length", row.length},       {"beam", nullptr},         {"ms", nullptr},
      {"ms_min", nullptr},  {"ms_max", nullptr},          {"tokens_per_s", nullptr}, {"peak_mib", nullptr}};
  if (row.task == "decode") json["beam"] = row.beam;
  if (row.status != Status::kMeasured) {
    json["error"] = reason(row);
    return json;
  }
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  json["ms"] = median(row.ms);
  json["ms_min"] = *least;
  json["ms_max"] = *most;
  json["tokens_per_s"] = tokens_per_second(row);
  if (row.peak_mib) json["peak_mib"] = *row.peak_mib;
  if (row.agreement) json["agreement"] = *row.agreement;
  if (row.profile) json["profile"] = to_json(*row.profile);
  return json;
}

nlohmann::ordered_json json_of(const nmt::ModelConfig& model) {
  return {{"source_vocabulary", model.source_vocabulary},
          {"target_vocabulary", model.target_vocabulary},
          {"d_model", model.d_model},
          {"num_heads", model.num_heads},
          {"d_ff", model.d_ff},
          {"encoder_layers", model.encoder_layers},
          {"decoder_layers", model.decoder_layers},
          {"dropout", model.dropout}};
}

}  // namespace

std::string table_header(const NmtBenchOptions& options) {
  return machine_line(options.workload.device) +
         "ms of a batch by the clock: median, least, most over the passes through the case's batches, after which the "
         "device is\nwaited for. tokens/s: real target tokens trained on, or translated to. peak MiB: the most that "
         "torch's allocator held at once beyond what it held "
         "before. same: the\nshare of a peer's translations that are ours to the last token.\n";
}

std::string table(const std::vector<NmtRow>& rows) {
  if (rows.empty()) return "";
  const NmtRow& first = rows.front();
  std::string text = format("\n%s, %s: batch %ld, %.1f target tokens a sentence", first.task.c_str(),
                            first.data.c_str(), first.batch, first.length);
  if (first.task == "decode") text += format(", beam %ld", first.beam);
  text += format("\n  %-16s %10s %10s %10s %11s %9s  %s\n", "", "ms", "least", "most", "tokens/s", "peak MiB",
                 first.task == "decode" ? "same" : "");
  std::string reasons, profiles;
  for (const NmtRow& row : rows) {
    text += format("  %-16s ", row.attn_type.c_str()) + cells(row) + '\n';
    if (row.status != Status::kMeasured) reasons += "  " + row.attn_type + ": " + reason(row) + '\n';
    if (row.profile) profiles += profile_line(row.attn_type, *row.profile);
  }
  return text + (profiles.empty() ? "" : profile_header() + profiles) + reasons;
}

nlohmann::ordered_json to_json(const std::vector<NmtRow>& rows, const NmtReport& report, const NmtBenchOptions& options,
                               const std::string& command) {
  const std::string device = device_text(options.workload.device);
  nlohmann::ordered_json json = provenance("nmt", options.workload.device, command);
  json["versions"].update(report.peer_versions);
  json["model"] = json_of(report.model);
  json["precision"] = train::precision_name(options.precision);
  json["rows"] = nlohmann::ordered_json::array();
  for (const NmtRow& row : rows) json["rows"].push_back(json_row(row, device));
  return json;
}

}  // namespace strobe::bench
