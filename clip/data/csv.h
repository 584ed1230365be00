#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace strobe::clip {

/// Rows of a CSV file after RFC 4180: fields may be quoted, "" in quotes is a quote, quoted fields may span lines; rows
/// end with \n or \r\n. Throws DataError with the line.
class CsvReader {
 public:
  explicit CsvReader(const std::filesystem::path& file, char separator = ',');

  bool next(std::vector<std::string>& fields);  // false: the file has ended. Empty lines are left out
  int64_t line() const { return row_line_; }    // where the row starts, from 1
  int64_t bytes_read() const { return bytes_read_; }

 private:
  int get();
  void read_quoted(std::string& field);
  [[noreturn]] void fail(const char* what) const;

  std::filesystem::path file_;
  std::ifstream in_;
  char separator_;
  int64_t line_ = 1;
  int64_t row_line_ = 0;
  int64_t bytes_read_ = 0;
};

}  // namespace strobe::clip
