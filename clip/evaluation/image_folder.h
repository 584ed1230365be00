// Labelled images in one folder a class, read as torchvision's ImageFolder reads them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace strobe::clip {

struct LabelledImage {
  std::filesystem::path file;
  int64_t label = 0;  // the class's number
};

struct ImageFolder {
  std::vector<std::string> classes;   // the names of the folders, sorted
  std::vector<LabelledImage> images;  // by class, folder and name; files that are named like images
};

/// Throws strobe::Error where there is no class, or one without an image.
ImageFolder read_image_folder(const std::filesystem::path& folder);

}  // namespace strobe::clip
