#include "cli/count_progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>

namespace strobe::cli {

void CountProgress::operator()(int64_t done, int64_t total) {
  if (!line_.due()) return;
  const double seconds = std::max(std::chrono::duration<double>(Clock::now() - start_).count(), 1e-9);
  const double rate = static_cast<double>(done) / seconds;
  const double left = static_cast<double>(total - done) / std::max(rate, 1e-9);
  line_.show(fmt::format("{} {}/{}  {:.0f}/s  left {}", what_, done, total, rate, train::format_duration(left)));
}

void CountProgress::note(const std::string& text) {
  line_.clear();
  std::cerr << fmt::format("{}\n", text);
}

}  // namespace strobe::cli
