#include "train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>

#include "strobe/types.h"

namespace strobe::train {
namespace {

constexpr uint32_t kCastagnoli = 0x82f63b78;  // the polynomial, bits reversed
constexpr uint32_t kMaskDelta = 0xa282ead8;   // TFRecord stores rotated checksums, lest a record hold its own

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t remainder = i;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ (remainder & 1 ? kCastagnoli : 0);
    table[i] = remainder;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

uint32_t masked_crc32c(std::string_view data) { return std::rotr(crc32c(data), 15) + kMaskDelta; }

template <typename T>
std::string raw(T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  return {bytes, sizeof(T)};
}

// The wire format of Protocol Buffers: a key of field number and type, then the value.
enum WireType { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

std::string key(uint32_t field, WireType type) { return varint(field << 3 | static_cast<uint32_t>(type)); }

std::string block(uint32_t field, std::string_view content) {
  return key(field, kLengthDelimited) + varint(content.size()) + std::string(content);
}

std::string wall_time() {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return key(1, kFixed64) + raw(now.count());
}

std::string step_field(int64_t step) { return key(2, kVarint) + varint(static_cast<uint64_t>(step)); }

std::filesystem::path file_name() {
  static std::atomic<int> count = 0;
  char host[256] = "localhost";
  ::gethostname(host, sizeof(host) - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return "events.out.tfevents." + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now).count()) + "." +
         host + "." + std::to_string(::getpid()) + "." + std::to_string(count++);
}

}  // namespace

uint32_t crc32c(std::string_view data) {
  uint32_t crc = ~0u;
  for (const char byte : data) crc = crc >> 8 ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path file = folder / file_name();
  file_.open(file, std::ios::binary | std::ios::app);
  if (!file_) throw Error("event file " + file.string() + ": cannot be written");
  write(wall_time() + block(3, "brain.Event:2"));
}

void EventFile::restart(int64_t step) {
  const std::string start = key(1, kVarint) + varint(1);  // SessionLog.START
  write(wall_time() + step_field(step) + block(7, start));
}

void EventFile::scalar(std::string_view tag, int64_t step, double value) {
  const std::string point = block(1, tag) + key(2, kFixed32) + raw(static_cast<float>(value));
  write(wall_time() + step_field(step) + block(5, block(1, point)));
}

void EventFile::write(const std::string& event) {
  const std::string length = raw(static_cast<uint64_t>(event.size()));
  file_ << length << raw(masked_crc32c(length)) << event << raw(masked_crc32c(event)) << std::flush;
}

}  // namespace strobe::train
