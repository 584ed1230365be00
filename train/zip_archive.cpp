#include "train/zip_archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "train/value.h"

namespace strobe::train {
namespace {

constexpr uint32_t kEntry = 0x02014b50, kLocalHeader = 0x04034b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::size_t kEntrySize = 46, kLocalHeaderSize = 30, kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20;
constexpr std::size_t kMaxComment = 0xffff;
constexpr uint16_t kEncrypted = 1, kStored = 0, kZip64Extra = 1;
constexpr uint32_t kIn64Bits = 0xffffffff;  // a size or offset that stands in the extra field

[[noreturn]] void fail(const std::string& what) {
  throw CheckpointError("cannot be read (truncated, or not a checkpoint): " + what);
}

std::string_view slice(std::string_view bytes, uint64_t offset, uint64_t size) {
  if (offset > bytes.size() || size > bytes.size() - offset) fail("the zip archive points beyond the file's end");
  return bytes.substr(static_cast<std::size_t>(offset), static_cast<std::size_t>(size));
}

template <typename T>
T field(std::string_view bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, slice(bytes, offset, sizeof(T)).data(), sizeof(T));
  return value;
}

bool has_signature(std::string_view bytes, std::size_t offset, uint32_t signature) {
  return offset <= bytes.size() && bytes.size() - offset >= sizeof(signature) &&
         field<uint32_t>(bytes, offset) == signature;
}

std::size_t find_end(std::string_view file) {
  if (file.size() >= kEndSize) {
    const std::size_t last = file.size() - kEndSize;
    for (std::size_t back = 0; back <= std::min(last, kMaxComment); ++back) {
      if (has_signature(file, last - back, kEnd)) return last - back;
    }
  }
  fail("expected a zip archive, found no directory at the file's end");
}

/// Replaces those of `values` that are kept in 64 bits, in their order (APPNOTE 4.5.3).
void read_zip64(std::string_view extra, std::initializer_list<uint64_t*> values) {
  while (extra.size() >= 4) {
    const auto kind = field<uint16_t>(extra, 0);
    std::string_view data = slice(extra, 4, field<uint16_t>(extra, 2));
    extra.remove_prefix(4 + data.size());
    if (kind != kZip64Extra) continue;
    for (uint64_t* value : values) {
      if (*value != kIn64Bits) continue;
      *value = field<uint64_t>(data, 0);
      data.remove_prefix(sizeof(uint64_t));
    }
    return;
  }
}

/// Of a record within the archive's top folder.
std::string short_name(std::string_view name) { return std::string(name.substr(name.find('/') + 1)); }

}  // namespace

ZipArchive::ZipArchive(std::string_view file) {
  const Directory directory = find_directory(file);
  const std::string_view entries =
      slice(file, 0, directory.offset + slice(file, directory.offset, directory.size).size());
  std::size_t position = directory.offset;
  for (std::size_t i = 0; i < directory.entries; ++i) {
    if (!has_signature(entries, position, kEntry)) fail("the zip archive's directory is damaged");
    position = add_entry(file, position);
  }
}

ZipArchive::Directory ZipArchive::find_directory(std::string_view file) {
  const std::size_t end = find_end(file);
  if (end >= kLocatorSize && has_signature(file, end - kLocatorSize, kEnd64Locator)) {
    const std::string_view end64 = slice(file, field<uint64_t>(file, end - kLocatorSize + 8), kEnd64Size);
    if (!has_signature(end64, 0, kEnd64)) fail("the zip archive's directory is damaged");
    return {field<uint64_t>(end64, 32), field<uint64_t>(end64, 48), field<uint64_t>(end64, 40)};
  }
  return {field<uint16_t>(file, end + 10), field<uint32_t>(file, end + 16), field<uint32_t>(file, end + 12)};
}

/// Returns where the next entry begins.
std::size_t ZipArchive::add_entry(std::string_view file, std::size_t position) {
  const std::string_view entry = slice(file, position, kEntrySize);
  const auto name_size = field<uint16_t>(entry, 28), extra_size = field<uint16_t>(entry, 30);
  const std::string_view name = slice(file, position + kEntrySize, name_size);
  uint64_t stored = field<uint32_t>(entry, 20), size = field<uint32_t>(entry, 24), offset = field<uint32_t>(entry, 42);
  read_zip64(slice(file, position + kEntrySize + name_size, extra_size), {&size, &stored, &offset});
  const std::size_t next = position + kEntrySize + name_size + extra_size + field<uint16_t>(entry, 32);
  if (name.ends_with('/')) return next;  // a folder

  const std::string_view header = slice(file, offset, kLocalHeaderSize);
  if (!has_signature(header, 0, kLocalHeader)) fail(fmt::format("the record {} is damaged", name));
  const uint64_t data = offset + kLocalHeaderSize + field<uint16_t>(header, 26) + field<uint16_t>(header, 28);
  const bool is_plain = field<uint16_t>(entry, 10) == kStored && (field<uint16_t>(entry, 8) & kEncrypted) == 0;
  const bool is_new = records_.try_emplace(short_name(name), Record{slice(file, data, stored), is_plain}).second;
  if (!is_new) fail(fmt::format("two records are called {}", name));
  if (is_plain && stored != size) fail(fmt::format("the record {} has two sizes", name));
  return next;
}

bool ZipArchive::contains(const std::string& name) const { return records_.contains(name); }

std::string_view ZipArchive::record(const std::string& name) const {
  const auto entry = records_.find(name);
  if (entry == records_.end()) throw CheckpointError("lacks the record " + name);
  if (!entry->second.is_plain) {
    throw CheckpointError("the record " + name +
                          " is compressed or encrypted: expected an archive as torch.save writes");
  }
  return entry->second.data;
}

}  // namespace strobe::train
