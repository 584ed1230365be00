#include "cli/text_input.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "nmt/text.h"
#include "strobe/types.h"

namespace strobe::cli {
namespace {

namespace fs = std::filesystem;

std::ifstream open(const fs::path& file) {
  if (file.empty()) return {};
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream || fs::is_directory(file)) {
    throw Error("\"" + file.string() +
                "\": expected a text file, found: " + (stream ? "a directory" : std::strerror(errno)));
  }
  return stream;
}

/// Bytes of a regular file, else 0.
int64_t regular_size(const fs::path& file) {
  struct stat status {};
  const int failed = file.empty() ? ::fstat(STDIN_FILENO, &status) : ::stat(file.c_str(), &status);
  return failed == 0 && S_ISREG(status.st_mode) ? static_cast<int64_t>(status.st_size) : 0;
}

}  // namespace

TextInput::TextInput(const fs::path& file)
    : file_(open(file)),
      in_(file.empty() ? std::cin : file_),
      interactive_(file.empty() && ::isatty(STDIN_FILENO) == 1) {
  if (::isatty(STDERR_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 0) size_ = regular_size(file);
}

std::vector<std::string> TextInput::read(int64_t count) {
  if (size_ > 0 && lines_ > 0) show_progress();
  std::vector<std::string> lines;
  for (std::string line; static_cast<int64_t>(lines.size()) < (interactive_ ? 1 : count) && std::getline(in_, line);) {
    bytes_ += static_cast<int64_t>(line.size()) + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(std::move(line));
  }
  lines_ += static_cast<int64_t>(lines.size());
  if (lines.empty()) progress_.clear();
  return lines;
}

void TextInput::show_progress() {
  if (!progress_.due()) return;
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
  const double done = std::min(1.0, static_cast<double>(bytes_) / static_cast<double>(size_));
  progress_.show(fmt::format("{} lines  {:.1f} %  {:.0f} lines/s  left {}", lines_, 100.0 * done,
                             static_cast<double>(lines_) / passed.count(),
                             train::format_duration(passed.count() * (1.0 - done) / done)));
}

std::vector<std::string> read_text(const fs::path& file) {
  std::ifstream in = open(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(std::move(line));
    if (!nmt::is_valid_utf8(lines.back())) {
      throw Error("\"" + file.string() + "\": line " + std::to_string(lines.size()) +
                  ": expected UTF-8, found other bytes");
    }
  }
  return lines;
}

}  // namespace strobe::cli
