#include "train/atomic_file.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "train/value.h"

namespace strobe::train {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, const std::string& what) {
  throw CheckpointError("file " + file.string() + ": " + what);
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& file) : file_(file), temporary_(file.string() + ".tmp") {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(file_, std::string("cannot be written: ") + std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const char* data, std::size_t size) {
  while (size > 0 && error_ == 0) {
    const ssize_t written = ::write(fd_, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      error_ = errno;
      return;
    }
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  if (error_ == 0 && ::fsync(fd_) != 0) error_ = errno;
  if (error_ != 0) fail(file_, std::string("cannot be written: ") + std::strerror(error_));
  if (::rename(temporary_.c_str(), file_.c_str()) != 0) {
    fail(file_, std::string("cannot be renamed from ") + temporary_ + ": " + std::strerror(errno));
  }
  ::close(std::exchange(fd_, -1));
  sync_folder();
}

/// Without it the rename may be lost with the power. Some file systems cannot do it, and then the file is there anyway.
void AtomicFile::sync_folder() const {
  const std::string folder = file_.has_parent_path() ? file_.parent_path().string() : ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void write_atomically(const fs::path& file, const std::function<void(AtomicFile&)>& write) {
  try {
    if (file.has_parent_path()) fs::create_directories(file.parent_path());
    AtomicFile output(file);
    write(output);
    output.commit();
  } catch (const CheckpointError&) {
    throw;
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    fail(file, "cannot be written: " + text.substr(0, std::min(text.find(". "), text.find('\n'))));
  } catch (const std::exception& error) {
    fail(file, std::string("cannot be written: ") + error.what());
  }
}

}  // namespace strobe::train
