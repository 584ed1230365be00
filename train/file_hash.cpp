#include "train/file_hash.h"

#include <c10/util/hash.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "strobe/types.h"

namespace strobe::train {

std::string file_hash(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream stream;
  if (!in || (std::filesystem::file_size(file) > 0 && !(stream << in.rdbuf()))) {
    throw Error("file hash: " + file.string() + " cannot be read");
  }
  const std::string content = std::move(stream).str();
  c10::sha1 hash(content);
  if (content.empty()) hash.reset();
  return hash.str();
}

}  // namespace strobe::train
