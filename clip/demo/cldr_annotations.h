// What Unicode's Common Locale Data Repository calls characters (annotations: Unicode Technical Standard 35, part 2).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace strobe::clip {

struct CldrAnnotation {
  char32_t code_point = 0;
  std::string name;                   // the short name, type="tts"; UTF-8
  std::vector<std::string> keywords;  // in the file's order, without the name
};

/// The annotations of single code points that have a short name, ascending. Throws strobe::Error for a file that is
/// missing or is no annotation file.
std::vector<CldrAnnotation> read_cldr_annotations(const std::filesystem::path& file);

}  // namespace strobe::clip
