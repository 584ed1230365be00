#include "train/mapped_file.h"

#include <c10/core/CPUAllocator.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "train/value.h"

namespace strobe::train {
namespace {

/// The widest element, a complex double.
constexpr std::uintptr_t kAlignment = 16;

using Keeper = std::shared_ptr<const MappedFile>;

void release(void* keeper) { delete static_cast<Keeper*>(keeper); }

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& file) {
  const auto require = [](bool done, const char* what) {
    if (!done) throw CheckpointError(std::string(what) + std::strerror(errno));
  };
  std::shared_ptr<MappedFile> mapped(new MappedFile());
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) throw CheckpointError("no such file");
  require(fd >= 0, "cannot be read: ");
  const std::unique_ptr<const int, void (*)(const int*)> closer(&fd, [](const int* open) { ::close(*open); });
  struct stat status;
  require(::fstat(fd, &status) == 0, "cannot be read: ");
  if (!S_ISREG(status.st_mode)) throw CheckpointError("is not a file");
  if (status.st_size == 0) return mapped;  // which cannot be mapped
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
  require(data != MAP_FAILED, "cannot be mapped: ");
  mapped->data_ = static_cast<char*>(data);
  mapped->size_ = size;
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

c10::Storage MappedFile::storage(std::string_view part) const {
  const auto use_bytes = c10::Storage::use_byte_size_t();
  if (reinterpret_cast<std::uintptr_t>(part.data()) % kAlignment != 0) {
    c10::Storage copy(use_bytes, part.size(), c10::GetCPUAllocator());
    if (!part.empty()) std::memcpy(copy.mutable_data(), part.data(), part.size());
    return copy;
  }
  char* const data = data_ + (part.data() - data_);
  c10::DataPtr pointer(data, new Keeper(shared_from_this()), release, c10::DeviceType::CPU);
  return c10::Storage(use_bytes, part.size(), std::move(pointer));
}

}  // namespace strobe::train
