#include "clip/text/installed_package.h"

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> environments() {
  std::vector<fs::path> result;
  if (const char* active = std::getenv("VIRTUAL_ENV"); active != nullptr && *active != '\0')
    result.emplace_back(active);
  result.emplace_back(STROBE_CHECKOUT_VENV);
  return result;
}

/// The file of cn_clip in one virtual environment, or an empty path.
fs::path find_in(const fs::path& environment, std::string_view name) {
  std::error_code missing;
  for (const auto& python : fs::directory_iterator(environment / "lib", missing)) {
    fs::path file = python.path() / "site-packages" / "cn_clip" / name;
    if (fs::is_regular_file(file, missing)) return file;
  }
  return {};
}

fs::path installed(std::string_view name, std::string_view option) {
  std::string places;
  for (const fs::path& environment : environments()) {
    if (fs::path file = find_in(environment, name); !file.empty()) return file;
    places += (places.empty() ? "" : ", nor in ") + environment.string();
  }
  throw Error("cn_clip/" + std::string(name) + ": not found in " + places +
              "; install the package there (pip install --no-deps cn_clip==1.6.0) or name the file with " +
              std::string(option));
}

}  // namespace

fs::path default_vocabulary() { return installed("clip/vocab.txt", "--vocab"); }
fs::path default_templates() { return installed("eval/cvinw_zeroshot_templates.py", "--templates"); }

}  // namespace strobe::clip
