// Text that a command reads line by line, and the line that shows how far it has come.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "train/progress.h"

namespace strobe::cli {

/// The file's lines, or, where its name is empty, those of standard input. Where the input is a file, standard error a
/// terminal and standard output none, a line on the terminal shows lines, rate and time left.
class TextInput {
 public:
  /// Throws strobe::Error where the file cannot be read.
  explicit TextInput(const std::filesystem::path& file);

  /// Up to `count` lines without their ends (LF or CR LF); none at the end of the input. From a terminal one line, so
  /// that each is answered when it is typed. Says that the lines read before are dealt with.
  std::vector<std::string> read(int64_t count);

 private:
  void show_progress();

  std::ifstream file_;
  std::istream& in_;
  bool interactive_ = false;
  int64_t size_ = 0;  // bytes of a file whose progress is shown; 0: nothing is shown
  int64_t bytes_ = 0, lines_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  train::ProgressLine progress_;
};

/// All lines of a file. Throws strobe::Error naming the file where it cannot be read, and the line where it is not
/// UTF-8.
std::vector<std::string> read_text(const std::filesystem::path& file);

}  // namespace strobe::cli
