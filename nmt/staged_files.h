// Several files of one folder replaced together: all of them or none.
#pragma once

#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace strobe::nmt {

/// Files are written into a hidden folder beside their places and moved there by commit(). Without a commit, or when
/// one fails half-way, everything is as it was before. All errors are strobe::Error with the system's reason.
class StagedFiles {
 public:
  /// Makes `folder` where it is missing.
  explicit StagedFiles(std::filesystem::path folder);
  ~StagedFiles();
  StagedFiles(const StagedFiles&) = delete;
  StagedFiles& operator=(const StagedFiles&) = delete;

  /// `name` is relative to the folder and may have folders in it.
  void write(const std::filesystem::path& name, const std::function<void(std::ostream&)>& content);
  void commit();

  /// Throws where files could not be made in `folder`, so that a long job can fail at its start.
  static void require_writable(const std::filesystem::path& folder);

 private:
  void put_in_place(const std::filesystem::path& name);
  void make_folders(const std::filesystem::path& folder);
  void undo() noexcept;

  std::filesystem::path folder_, stage_;
  std::vector<std::filesystem::path> names_;         // staged
  std::vector<std::filesystem::path> placed_;        // the new file is in its place
  std::vector<std::filesystem::path> set_aside_;     // the old file is in the stage
  std::vector<std::filesystem::path> made_folders_;  // outermost first
};

}  // namespace strobe::nmt
