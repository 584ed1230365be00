#include "nmt/staged_files.h"

#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;

constexpr char kPattern[] = ".staged-XXXXXX";  // for mkdtemp

[[noreturn]] void fail(const std::string& what, const fs::path& path, const std::string& reason) {
  throw Error(what + " \"" + path.string() + "\": " + reason);
}

}  // namespace

StagedFiles::StagedFiles(fs::path folder) : folder_(std::move(folder)) {
  try {
    make_folders(folder_);
    std::string pattern = (folder_ / kPattern).string();
    if (mkdtemp(pattern.data()) == nullptr) fail("writing into", folder_, std::strerror(errno));
    stage_ = pattern;
  } catch (...) {
    undo();
    throw;
  }
}

StagedFiles::~StagedFiles() { undo(); }

void StagedFiles::make_folders(const fs::path& folder) {
  if (folder.empty() || fs::is_directory(folder)) return;
  make_folders(folder.parent_path());
  std::error_code error;
  if (!fs::create_directory(folder, error)) fail("making the folder", folder, error.message());
  made_folders_.push_back(folder);
}

void StagedFiles::write(const fs::path& name, const std::function<void(std::ostream&)>& content) {
  const fs::path file = stage_ / "new" / name;
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  errno = 0;
  std::ofstream stream(file, std::ios::binary);
  if (stream) content(stream);
  stream.close();
  if (!stream) fail("writing", file, std::strerror(errno));
  names_.push_back(name);
}

void StagedFiles::put_in_place(const fs::path& name) {
  const fs::path place = folder_ / name, old = stage_ / "old" / name;
  make_folders(place.parent_path());
  std::error_code error;
  if (fs::is_directory(place)) fail("replacing", place, "it is a folder");
  if (fs::exists(fs::symlink_status(place))) {
    fs::create_directories(old.parent_path(), error);
    fs::rename(place, old, error);
    if (error) fail("replacing", place, error.message());
    set_aside_.push_back(name);
  }
  fs::rename(stage_ / "new" / name, place, error);
  if (error) fail("writing", place, error.message());
  placed_.push_back(name);
}

void StagedFiles::commit() {
  for (const fs::path& name : names_) put_in_place(name);
  placed_.clear();
  set_aside_.clear();
  made_folders_.clear();
}

void StagedFiles::undo() noexcept {
  std::error_code ignored;
  for (const fs::path& name : placed_) fs::remove(folder_ / name, ignored);
  for (const fs::path& name : set_aside_) fs::rename(stage_ / "old" / name, folder_ / name, ignored);
  if (!stage_.empty()) fs::remove_all(stage_, ignored);
  for (auto folder = made_folders_.rbegin(); folder != made_folders_.rend(); ++folder) fs::remove(*folder, ignored);
}

void StagedFiles::require_writable(const fs::path& folder) {
  fs::path existing = fs::absolute(folder);
  while (!fs::exists(existing)) existing = existing.parent_path();
  if (!fs::is_directory(existing)) fail("writing into", folder, existing.string() + " is not a folder");
  std::string probe = (existing / kPattern).string();
  if (mkdtemp(probe.data()) == nullptr) fail("writing into", folder, std::strerror(errno));
  rmdir(probe.c_str());
}

}  // namespace strobe::nmt
