#include "clip/data/lines.h"

#include <fmt/format.h>

#include <system_error>

#include "clip/data/error.h"

namespace strobe::clip {
namespace {

constexpr char kSpace[] = " \t\n\r\v\f\x1c\x1d\x1e\x1f";

void strip(std::string& text) {
  const std::size_t last = text.find_last_not_of(kSpace);
  text.resize(last == std::string::npos ? 0 : last + 1);
  text.erase(0, text.find_first_not_of(kSpace));
}

}  // namespace

LineReader::LineReader(const std::filesystem::path& file) : file_(file), in_(file, std::ios::binary) {
  std::error_code error;
  if (!in_ || std::filesystem::is_directory(file)) {
    throw DataError(fmt::format("{}: the file cannot be read", file.string()));
  }
  file_bytes_ = static_cast<int64_t>(std::filesystem::file_size(file, error));
  if (error) file_bytes_ = 0;  // a pipe
}

bool LineReader::next() {
  while (std::getline(in_, text_)) {
    bytes_read_ += static_cast<int64_t>(text_.size()) + 1;
    if (++number_ == 1 && text_.starts_with("\xef\xbb\xbf")) text_.erase(0, 3);  // what Windows' editors put there
    strip(text_);
    if (!text_.empty()) return true;
  }
  if (in_.bad()) throw DataError(fmt::format("{}: reading failed at line {}", file_.string(), number_ + 1));
  return false;
}

}  // namespace strobe::clip
