#include "clip/data/base64.h"

#include <array>
#include <cstdint>
#include <utility>

namespace strobe::clip {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kOther = 0xff;

constexpr std::array<uint8_t, 256> make_values() {
  std::array<uint8_t, 256> values{};
  values.fill(kOther);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<uint8_t>(i);
  }
  values['-'] = 62;
  values['_'] = 63;
  return values;
}

constexpr std::array<uint8_t, 256> kValues = make_values();

}  // namespace

std::optional<std::string> decode_base64(std::string_view text) {
  std::string bytes(text.size() / 4 * 3 + 3, '\0');
  std::size_t size = 0, i = 0;
  uint32_t bits = 0;
  int digits = 0, padding = 0;  // of the group of four
  const auto put = [&](uint32_t byte) { bytes[size++] = static_cast<char>(byte); };
  const auto value_at = [&](std::size_t index) -> uint32_t { return kValues[static_cast<unsigned char>(text[index])]; };
  const auto result = [&] {
    bytes.resize(size);
    return std::move(bytes);
  };
  while (i < text.size()) {
    if (digits == 0 && text.size() - i >= 4) {  // as a rule four digits follow
      const uint32_t a = value_at(i), b = value_at(i + 1), c = value_at(i + 2), d = value_at(i + 3);
      if ((a | b | c | d) < 64) {
        bits = a << 18 | b << 12 | c << 6 | d;
        put(bits >> 16);
        put(bits >> 8);
        put(bits);
        i += 4;
        padding = 0;
        continue;
      }
    }
    const char character = text[i];
    const uint32_t value = value_at(i++);
    if (character == '=') {
      if (digits >= 2 && ++padding + digits >= 4) return result();
      continue;
    }
    if (value == kOther) continue;
    padding = 0;
    bits = bits << 6 | value;
    digits = (digits + 1) % 4;
    // A byte is there as soon as its bits are: 6, 12, 18 and 24 of them after each digit.
    if (digits != 1) put(bits >> (digits == 2 ? 4 : digits == 3 ? 2 : 0));
  }
  if (digits != 0) return std::nullopt;
  return result();
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t k) {
      return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u;
    };
    const uint32_t bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (int shift = 18; shift >= 0; shift -= 6) text.push_back(kAlphabet[bits >> shift & 63]);
  }
  for (std::size_t i = 0; i < (3 - bytes.size() % 3) % 3; ++i) text[text.size() - 1 - i] = '=';
  return text;
}

}  // namespace strobe::clip
