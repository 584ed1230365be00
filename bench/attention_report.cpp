#include "bench/attention_report.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "bench/machine.h"
#include "bench/report.h"
#include "bench/roofline_report.h"

namespace strobe::bench {
namespace {

using Status = ContenderResult::Status;

/// Of `work`, bytes or operations, a second.
double rate(double work, const AttentionRow& row) { return work / (median(row.ms) * 1e-3); }

double flops_per_s(const AttentionRow& row) {
  return rate(attention_flops(row.which.shape, row.which.causal, row.direction), row);
}

double bytes_per_s(const AttentionRow& row) {
  return rate(attention_bytes(row.which.shape, row.which.dtype, row.direction), row);
}

const char* failure(const AttentionRow& row) { return row.status == Status::kOutOfMemory ? "oom" : "n/a"; }

std::string percent(double share) { return share > 0 ? format("%.1f", 100 * share) : ""; }

std::string cells(const AttentionRow& row, const Ceilings& ceilings) {
  if (row.status != Status::kMeasured) return format("%10s", failure(row));
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  const Shares share = shares(row, ceilings);
  const std::string host = row.host_ms.empty() ? "" : format("%.3f", median(row.host_ms));
  return format("%10.3f %10.3f %10.3f %8.3f %6s %8.1f %6s %9.1f %8s", median(row.ms), *least, *most,
                flops_per_s(row) / 1e12, percent(share.products).c_str(), bytes_per_s(row) / 1e9,
                percent(share.memory).c_str(), row.peak_mib, host.c_str());
}

nlohmann::ordered_json json_row(const AttentionRow& row, const Ceilings& ceilings) {
  const AttentionShape& s = row.which.shape;
  nlohmann::ordered_json json = {{"case", case_name(row.which)}, {"batch", s.batch},
                                 {"heads", s.num_heads},         {"heads_k", s.num_heads},
                                 {"seqlen_q", s.seqlen},         {"seqlen_k", s.seqlen},
                                 {"head_dim", s.head_dim},       {"dtype", dtype_name(row.which.dtype)},
                                 {"causal", row.which.causal},   {"backend", row.backend},
                                 {"direction", row.direction}};
  for (const char* key : {"ms", "ms_min", "ms_max", "host_ms", "tflops", "gb_per_s", "share_of_products",
                          "share_of_memory", "peak_mib"}) {
    json[key] = nullptr;
  }
  if (row.status != Status::kMeasured) {
    json["error"] = row.status == Status::kOutOfMemory ? "oom" : row.why;
    return json;
  }
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  const Shares share = shares(row, ceilings);
  json["ms"] = median(row.ms);
  json["ms_min"] = *least;
  json["ms_max"] = *most;
  if (!row.host_ms.empty()) json["host_ms"] = median(row.host_ms);
  json["tflops"] = flops_per_s(row) / 1e12;
  json["gb_per_s"] = bytes_per_s(row) / 1e9;
  if (share.products > 0) json["share_of_products"] = share.products;
  if (share.memory > 0) json["share_of_memory"] = share.memory;
  json["peak_mib"] = row.peak_mib;
  return json;
}

/// The most of forward and backward, by length; lengths that did not run are missing.
std::map<int64_t, double> peaks(const std::vector<AttentionRow>& rows, const std::string& backend) {
  std::map<int64_t, double> found;
  for (const AttentionRow& row : rows) {
    if (row.backend != backend || row.status != Status::kMeasured) continue;
    double& peak = found[row.which.shape.seqlen];
    peak = std::max(peak, row.peak_mib);
  }
  return found;
}

template <class Value, class Of>
std::vector<Value> distinct(const std::vector<AttentionRow>& rows, const Of& of) {
  std::vector<Value> values;
  for (const AttentionRow& row : rows) {
    if (std::find(values.begin(), values.end(), of(row)) == values.end()) values.push_back(of(row));
  }
  return values;
}

}  // namespace

std::string table_header(const AttentionBenchOptions& options, const Ceilings& ceilings) {
  return machine_line(options.device) + "ceilings, measured now: " + text_of(ceilings) +
         "\n"
         "ms: median, least, most. TFLOP/s of the visible pairs and GB/s of inputs and results read and written once, "
         "each with its\npercentage of the ceiling. peak MiB: the most that torch's allocator held at once during the "
         "call beyond the inputs, results\nincluded; in the backward with what the forward had saved. host ms, on a "
         "GPU: until the call was queued.\n";
}

Shares shares(const AttentionRow& row, const Ceilings& ceilings) {
  const double flops = ceilings.flops(row.which.dtype);
  return {ceilings.bytes_per_s > 0 ? bytes_per_s(row) / ceilings.bytes_per_s : 0.0,
          flops > 0 ? flops_per_s(row) / flops : 0.0};
}

std::string table(const std::vector<AttentionRow>& rows, const Ceilings& ceilings) {
  std::string text, reasons;
  if (rows.empty()) return text;
  text = format("\n%s\n", case_name(rows.front().which).c_str());
  for (const AttentionRow& row : rows) {
    if (row.backend == rows.front().backend) {
      text += format("  %-16s %10s %10s %10s %8s %6s %8s %6s %9s %8s\n", row.direction.c_str(), "ms", "least", "most",
                     "TFLOP/s", "%", "GB/s", "%", "peak MiB", "host ms");
    }
    text += format("  %-16s ", row.backend.c_str()) + cells(row, ceilings) + '\n';
    if (row.status == Status::kCannotRun && row.direction == "fwd") {
      reasons += format("  %s: %s\n", row.backend.c_str(), row.why.c_str());
    }
  }
  return text + reasons;
}

std::string memory_table(const std::vector<AttentionRow>& rows) {
  const auto backends = distinct<std::string>(rows, [](const AttentionRow& row) { return row.backend; });
  std::string text = format("\npeak MiB of forward and backward\n  %8s", "N");
  for (const std::string& backend : backends) text += format(" %15s", backend.c_str());
  for (const int64_t seqlen : distinct<int64_t>(rows, [](const AttentionRow& row) { return row.which.shape.seqlen; })) {
    text += format("\n  %8ld", seqlen);
    for (const std::string& backend : backends) {
      const auto found = peaks(rows, backend);
      const auto peak = found.find(seqlen);
      text += peak == found.end() ? format(" %15s", "-") : format(" %15.1f", peak->second);
    }
  }
  text += format("\n  %8s", "grows as");
  for (const std::string& backend : backends) {
    const std::optional<double> growth = memory_growth(rows, backend);
    text += format(" %15s", growth ? format("N^%.2f", *growth).c_str() : "");
  }
  return text + '\n';
}

std::optional<double> memory_growth(const std::vector<AttentionRow>& rows, const std::string& backend) {
  const auto found = peaks(rows, backend);
  if (found.size() < 2) return std::nullopt;
  const auto& [longest, most] = *found.rbegin();
  const auto& [before, less] = *std::next(found.rbegin());
  if (!(less > 0)) return std::nullopt;
  return std::log(most / less) / std::log(static_cast<double>(longest) / static_cast<double>(before));
}

nlohmann::ordered_json to_json(const std::vector<AttentionRow>& rows, const Ceilings& ceilings,
                               const AttentionBenchOptions& options, const std::string& command) {
  nlohmann::ordered_json json = provenance("attention", options.device, command);
  json["ceilings"] = to_json(ceilings);
  json["rows"] = nlohmann::ordered_json::array();
  for (const AttentionRow& row : rows) json["rows"].push_back(json_row(row, ceilings));
  return json;
}

}  // namespace strobe::bench
