#include "bench/attention_report.h"

#include <algorithm>

#include "bench/report.h"
#include "train/environment.h"

namespace strobe::bench {
namespace {

using Status = ContenderResult::Status;

const char* dtype_name(at::ScalarType dtype) {
  return dtype == at::kFloat ? "fp32" : dtype == at::kHalf ? "fp16" : "bf16";
}

std::string case_name(const AttentionRow& row) {
  const AttentionShape& s = row.shape;
  return format("B%ld H%ld N%ld D%ld %s%s", s.batch, s.num_heads, s.seqlen, s.head_dim, dtype_name(row.dtype),
                row.causal ? " causal" : "");
}

double tflops(const AttentionRow& row) {
  return attention_flops(row.shape, row.causal, row.direction) / (median(row.ms) * 1e9);
}

std::string cells(const AttentionRow& row) {
  if (row.status != Status::kMeasured) {
    return format("%10s %21s %7s %9s", row.status == Status::kOutOfMemory ? "oom" : "n/a", "", "", "");
  }
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  return format("%10.3f %10.3f %10.3f %7.3f %9.1f", median(row.ms), *least, *most, tflops(row), row.peak_mib);
}

nlohmann::ordered_json json_row(const AttentionRow& row) {
  const AttentionShape& s = row.shape;
  nlohmann::ordered_json json = {{"case", case_name(row)},     {"batch", s.batch},
                                 {"heads", s.num_heads},       {"heads_k", s.num_heads},
                                 {"seqlen_q", s.seqlen},       {"seqlen_k", s.seqlen},
                                 {"head_dim", s.head_dim},     {"dtype", dtype_name(row.dtype)},
                                 {"causal", row.causal},       {"backend", row.backend},
                                 {"direction", row.direction}, {"ms", nullptr},
                                 {"ms_min", nullptr},          {"ms_max", nullptr},
                                 {"tflops", nullptr},          {"peak_mib", nullptr}};
  if (row.status == Status::kMeasured) {
    const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
    json["ms"] = median(row.ms);
    json["ms_min"] = *least;
    json["ms_max"] = *most;
    json["tflops"] = tflops(row);
    json["peak_mib"] = row.peak_mib;
  } else {
    json["error"] = row.status == Status::kOutOfMemory ? "oom" : row.why;
  }
  return json;
}

}  // namespace

std::string table_header(const AttentionBenchOptions& options) {
  return format("device %s; instruction sets %s; torch %s; commit %s\n", device_text(options.device).c_str(),
                train::instruction_sets().c_str(), train::torch_version().c_str(), train::commit().c_str()) +
         "ms: median, least, most. TFLOP/s of the visible pairs. peak MiB: the most that torch's allocator held at "
         "once "
         "during the\ncall beyond the inputs, results included; in the backward with what the forward had saved.\n";
}

std::string table(const std::vector<AttentionRow>& rows) {
  std::string text, reasons;
  if (rows.empty()) return text;
  text = format("\n%s\n", case_name(rows.front()).c_str());
  for (const AttentionRow& row : rows) {
    if (row.backend == rows.front().backend) {
      text += format("  %-16s %10s %10s %10s %7s %9s\n", row.direction.c_str(), "ms", "least", "most", "TFLOP/s",
                     "peak MiB");
    }
    text += format("  %-16s ", row.backend.c_str()) + cells(row) + '\n';
    if (row.status == Status::kCannotRun && row.direction == "fwd") {
      reasons += format("  %s: %s\n", row.backend.c_str(), row.why.c_str());
    }
  }
  return text + reasons;
}

nlohmann::ordered_json to_json(const std::vector<AttentionRow>& rows, const AttentionBenchOptions& options,
                               const std::string& command) {
  nlohmann::ordered_json json = {{"what", "attention"},
                                 {"commit", train::commit()},
                                 {"device", device_text(options.device)},
                                 {"torch", train::torch_version()},
                                 {"command", command},
                                 {"rows", nlohmann::ordered_json::array()}};
  for (const AttentionRow& row : rows) json["rows"].push_back(json_row(row));
  return json;
}

}  // namespace strobe::bench
