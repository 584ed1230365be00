// The archives that torch.save writes: zip files whose records are stored as they are (PKWARE's APPNOTE 6.3).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

namespace strobe::train {

/// The directory of an archive that lies in memory, which must outlive it. Everything is checked against the bounds
/// when it is built. Throws CheckpointError.
class ZipArchive {
 public:
  explicit ZipArchive(std::string_view file);

  bool contains(const std::string& name) const;

  /// A record by its name below the archive's one top folder ("data.pkl", "data/0"). Throws CheckpointError where there
  /// is none, or where it is compressed or encrypted, which torch.save never does to tensors.
  std::string_view record(const std::string& name) const;

 private:
  struct Directory {
    std::size_t entries, offset, size;
  };
  static Directory find_directory(std::string_view file);
  std::size_t add_entry(std::string_view file, std::size_t position);

  struct Record {
    std::string_view data;
    bool is_plain;
  };
  std::unordered_map<std::string, Record> records_;
};

}  // namespace strobe::train
