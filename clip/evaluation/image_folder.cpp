#include "clip/evaluation/image_folder.h"

#include <algorithm>
#include <array>
#include <utility>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

/// torchvision's list; what is not read among them is skipped when it is opened, with its name.
bool is_image_name(const fs::path& file) {
  static constexpr std::array kExtensions{".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"};
  std::string name = file.filename().string();
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  return std::any_of(kExtensions.begin(), kExtensions.end(), [&](const char* end) { return name.ends_with(end); });
}

std::vector<std::string> class_names(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<fs::path> images_below(const fs::path& folder) {
  std::vector<std::pair<std::string, std::string>> found;  // folder, name
  const auto options = fs::directory_options::follow_directory_symlink;
  for (const auto& entry : fs::recursive_directory_iterator(folder, options)) {
    if (entry.is_directory() || !is_image_name(entry.path())) continue;
    found.emplace_back(entry.path().parent_path().string(), entry.path().filename().string());
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> files;
  for (const auto& [parent, name] : found) files.push_back(fs::path(parent) / name);
  return files;
}

}  // namespace

ImageFolder read_image_folder(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw Error("image folder " + folder.string() + ": is not there");
  ImageFolder result;
  result.classes = class_names(folder);
  if (result.classes.empty())
    throw Error("image folder " + folder.string() + ": expected a folder for each class, found none");
  for (std::size_t label = 0; label < result.classes.size(); ++label) {
    const std::vector<fs::path> files = images_below(folder / result.classes[label]);
    if (files.empty())
      throw Error("image folder " + folder.string() + ": " + result.classes[label] + ": holds no image");
    for (const fs::path& file : files) result.images.push_back({file, static_cast<int64_t>(label)});
  }
  return result;
}

}  // namespace strobe::clip
