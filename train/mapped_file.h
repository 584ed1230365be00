// Files in memory without being read: pages come when they are touched and go when memory is wanted.
#pragma once

#include <c10/core/Storage.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string_view>

namespace strobe::train {

/// The whole of a regular file. Writing to what is mapped changes memory alone. A file that is replaced by renaming
/// stays as it was for its mapping.
class MappedFile : public std::enable_shared_from_this<MappedFile> {
 public:
  /// Throws CheckpointError with the reason, without the file's name.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_}; }

  /// A storage over `part` of bytes(), which keeps the mapping alive; a copy where the part is not aligned for tensors.
  c10::Storage storage(std::string_view part) const;

 private:
  MappedFile() = default;
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace strobe::train
