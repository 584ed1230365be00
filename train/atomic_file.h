// Files that are written whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace strobe::train {

/// A file that takes its final name only when all of it is on the disk: whoever reads it finds the old or the new one,
/// whole. Left uncommitted it vanishes. Throws CheckpointError naming the file.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& file);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Remembers a failure for commit() instead of reporting it: an archive writer's destructor cannot bear one.
  void write(const char* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  void sync_folder() const;

  std::filesystem::path file_;
  std::string temporary_;
  int fd_ = -1;
  int error_ = 0;
};

/// Makes the folder if need be, lets `write` fill the file and commits it. Whatever goes wrong becomes a
/// CheckpointError naming the file, which then is as it was.
void write_atomically(const std::filesystem::path& file, const std::function<void(AtomicFile&)>& write);

}  // namespace strobe::train
