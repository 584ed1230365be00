#include "clip/data/csv.h"

#include <fmt/format.h>

#include <cstdio>

#include "clip/data/error.h"

namespace strobe::clip {

CsvReader::CsvReader(const std::filesystem::path& file, char separator)
    : file_(file), in_(file, std::ios::binary), separator_(separator) {
  if (!in_ || std::filesystem::is_directory(file)) {
    throw DataError(fmt::format("{}: the file cannot be read", file.string()));
  }
  char mark[3] = {};
  in_.read(mark, sizeof(mark));
  if (std::string_view(mark, 3) == "\xef\xbb\xbf") return;  // what Windows' spreadsheets put there
  in_.clear();
  in_.seekg(0);
}

int CsvReader::get() {
  const int character = in_.get();
  if (character != EOF) ++bytes_read_;
  if (character == '\n') ++line_;
  return character;
}

void CsvReader::fail(const char* what) const {
  throw DataError(fmt::format("{}, line {}: {}", file_.string(), row_line_, what));
}

void CsvReader::read_quoted(std::string& field) {
  while (true) {
    const int character = get();
    if (character == EOF) fail("a quoted field does not end");
    if (character == '"') {
      if (in_.peek() != '"') return;
      get();
    }
    field.push_back(static_cast<char>(character));
  }
}

bool CsvReader::next(std::vector<std::string>& fields) {
  while (in_.peek() == '\n' || in_.peek() == '\r') get();
  fields.clear();
  row_line_ = line_;
  if (in_.peek() == EOF) return false;
  while (true) {
    std::string& field = fields.emplace_back();
    if (in_.peek() == '"') {
      get();
      read_quoted(field);
      const int after = in_.peek();
      if (after != separator_ && after != '\n' && after != '\r' && after != EOF) fail("text follows a quoted field");
    }
    int character = get();
    while (character != separator_ && character != '\n' && character != EOF) {
      field.push_back(static_cast<char>(character));
      character = get();
    }
    if (character == separator_) continue;
    if (field.ends_with('\r')) field.pop_back();
    return true;
  }
}

}  // namespace strobe::clip
