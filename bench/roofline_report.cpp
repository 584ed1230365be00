#include "bench/roofline_report.h"

#include <algorithm>

#include "bench/machine.h"
#include "bench/report.h"

namespace strobe::bench {
namespace {

using Kind = RooflineRow::Kind;
using Status = ContenderResult::Status;

std::string size_text(const RooflineRow& row) {
  if (row.kind == Kind::kProduct) return format("%ld", row.size);
  return format("%.0f MiB", static_cast<double>(row.size) / (1 << 20));
}

std::string line(const RooflineRow& row) {
  std::string text = format("  %-8s %-5s %9s ", row.name.c_str(), dtype_name(row.dtype), size_text(row).c_str());
  if (row.status == Status::kOutOfMemory) return text + format("%10s\n", "oom");
  if (row.status == Status::kCannotRun) return text + format("%10s  %s\n", "n/a", row.why.c_str());
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  const bool memory = row.kind == Kind::kMemory;
  return text + format("%10.3f %10.3f %10.3f  %9.3f %s\n", median(row.ms), *least, *most,
                       row.rate() / (memory ? 1e9 : 1e12), memory ? "GB/s" : "TFLOP/s");
}

nlohmann::ordered_json json_row(const RooflineRow& row) {
  const bool memory = row.kind == Kind::kMemory;
  nlohmann::ordered_json json = {{"name", row.name}, {"dtype", dtype_name(row.dtype)}};
  json[memory ? "bytes" : "n"] = row.size;
  if (row.status != Status::kMeasured) {
    json["error"] = row.status == Status::kOutOfMemory ? "oom" : row.why;
    return json;
  }
  const auto [least, most] = std::minmax_element(row.ms.begin(), row.ms.end());
  json["ms"] = median(row.ms);
  json["ms_min"] = *least;
  json["ms_max"] = *most;
  json[memory ? "gb_per_s" : "tflops"] = row.rate() / (memory ? 1e9 : 1e12);
  return json;
}

}  // namespace

std::string table(const std::vector<RooflineRow>& rows) {
  std::string text = format("\n  %-8s %-5s %9s %10s %10s %10s  %9s\n", "", "", "size", "ms", "least", "most", "rate");
  for (const RooflineRow& row : rows) text += line(row);
  return text + "\nceilings: " + text_of(ceilings(rows)) + '\n';
}

std::string text_of(const Ceilings& ceilings) {
  std::string text;
  if (ceilings.bytes_per_s > 0) text = format("memory %.1f GB/s", ceilings.bytes_per_s / 1e9);
  for (const auto& [dtype, flops] : ceilings.flops_per_s) {
    text += format("%s%s %.3f TFLOP/s", text.empty() ? "" : ", ", dtype_name(dtype), flops / 1e12);
  }
  return text;
}

nlohmann::ordered_json to_json(const Ceilings& ceilings) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (ceilings.bytes_per_s > 0) json["memory_gb_per_s"] = ceilings.bytes_per_s / 1e9;
  for (const auto& [dtype, flops] : ceilings.flops_per_s)
    json[std::string(dtype_name(dtype)) + "_tflops"] = flops / 1e12;
  return json;
}

nlohmann::ordered_json to_json(const std::vector<RooflineRow>& rows, at::Device device, const std::string& command) {
  nlohmann::ordered_json json = provenance("roofline", device, command);
  json["ceilings"] = to_json(ceilings(rows));
  json["rows"] = nlohmann::ordered_json::array();
  for (const RooflineRow& row : rows) json["rows"].push_back(json_row(row));
  return json;
}

}  // namespace strobe::bench
