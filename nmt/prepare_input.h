// The first half of prepare: which pairs there are and which set each belongs to.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "nmt/prepare.h"
#include "nmt/split.h"

namespace strobe::nmt {

/// The three sets, what was passed over, and the files they came from.
struct PrepareInput {
  Split sets;
  SkippedLines skipped;
  std::vector<std::filesystem::path> files;
  bool is_tenth = false;  // dev and test got a tenth each, for want of more pairs
  bool in_place = false;  // the folder's own files: they stay as they are
};

/// Throws strobe::Error where options contradict each other or are out of range.
void validate(const PrepareOptions& options);

PrepareInput read_input(const PrepareOptions& options);

/// The sizes of the sets, and warnings.
void report_input(const PrepareInput& input, const std::function<void(const std::string&)>& log);

}  // namespace strobe::nmt
