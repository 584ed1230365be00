#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace strobe::clip {

/// The lines of a text file, without a byte order mark and white space at their ends, empty ones left out. Lines end
/// with \n or \r\n.
class LineReader {
 public:
  explicit LineReader(const std::filesystem::path& file);  // throws DataError where it cannot be read

  bool next();  // false: the file has ended
  const std::string& text() const { return text_; }
  int64_t number() const { return number_; }  // of the line, from 1, counting empty ones
  const std::filesystem::path& file() const { return file_; }
  int64_t bytes_read() const { return bytes_read_; }
  int64_t file_bytes() const { return file_bytes_; }

 private:
  std::filesystem::path file_;
  std::ifstream in_;
  std::string text_;
  int64_t number_ = 0;
  int64_t bytes_read_ = 0;
  int64_t file_bytes_ = 0;
};

}  // namespace strobe::clip
