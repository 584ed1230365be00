// A folder for files that nobody keeps.
#pragma once

#include <filesystem>

namespace strobe::bench {

class TemporaryFolder {
 public:
  /// Throws strobe::Error where it cannot be made.
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace strobe::bench
