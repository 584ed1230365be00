// run.json: what it takes to repeat a run, or to tell later how it came about.
#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <string>
#include <vector>

namespace strobe::train {

struct RunRecord {
  std::string command;                       // as typed
  std::string configuration;                 // of every option, TOML; kept beside as config.toml
  std::filesystem::path resumed_from;        // empty: a new run
  std::vector<std::filesystem::path> files;  // what is read: recorded with size and SHA-1
  at::Device device = at::kCPU;
};

/// Writes folder/config.toml and folder/run.json: {"runs": [{"started" (UTC), "command", "directory", "resumed_from",
/// "versions": {"strobe", "commit", "torch", "compiler"}, "machine": {"host", "device", "threads",
/// "instruction_sets"}, "files": {path: {"bytes", "sha1"}}}]}. A resumed run adds itself to the list, a new one begins
/// it. Each file is replaced as a whole. Throws strobe::Error naming the file.
void write_run_record(const std::filesystem::path& folder, const RunRecord& record);

}  // namespace strobe::train
