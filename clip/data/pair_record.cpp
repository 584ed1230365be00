#include "clip/data/pair_record.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <variant>
#include <vector>

#include "train/pickle.h"
#include "train/pickle_opcodes.h"

namespace strobe::clip {
namespace {

using train::pickle::Opcode;

constexpr int kWrittenProtocol = 4;
constexpr std::size_t kFrameTarget = 64 * 1024;  // bytes after which a frame ends
constexpr std::size_t kFrameMin = 4;             // a shorter one goes without a header

/// CPython's _Pickler, as far as a tuple of plain values takes it.
class Writer {
 public:
  std::string run(const Pair& pair) && {
    out_.push_back(static_cast<char>(Opcode::kProto));
    out_.push_back(kWrittenProtocol);
    save(pair.image_id);
    save(pair.text_id);
    save(pair.text);
    put(Opcode::kTuple3);
    put(Opcode::kMemoize);
    put(Opcode::kStop);
    end_frame();
    return std::move(out_);
  }

 private:
  void put(Opcode opcode) { frame_.push_back(static_cast<char>(opcode)); }

  template <typename T>
  void put_raw(T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    frame_.append(bytes, sizeof(T));
  }

  void end_frame() {
    if (frame_.size() >= kFrameMin) {
      const auto size = static_cast<uint64_t>(frame_.size());
      out_.push_back(static_cast<char>(Opcode::kFrame));
      out_.append(reinterpret_cast<const char*>(&size), sizeof(size));
    }
    out_ += frame_;
    frame_.clear();
  }

  /// A frame that has become long enough ends before the next value.
  void begin_value() {
    if (frame_.size() >= kFrameTarget) end_frame();
  }

  void save(const train::Value& value) {
    begin_value();
    std::visit([this](const auto& data) { save_data(data); }, value.data);
  }

  void save_data(std::monostate) { put(Opcode::kNone); }
  void save_data(bool value) { put(value ? Opcode::kNewTrue : Opcode::kNewFalse); }
  void save_data(double value) {
    put(Opcode::kBinFloat);
    put_raw(__builtin_bswap64(std::bit_cast<uint64_t>(value)));
  }

  void save_data(int64_t value) {
    if (value >= 0 && value <= 0xff) {
      put(Opcode::kBinInt1);
      put_raw(static_cast<uint8_t>(value));
    } else if (value >= 0 && value <= 0xffff) {
      put(Opcode::kBinInt2);
      put_raw(static_cast<uint16_t>(value));
    } else if (value == static_cast<int32_t>(value)) {
      put(Opcode::kBinInt);
      put_raw(static_cast<int32_t>(value));
    } else {
      int bytes = 5;  // the fewest that keep the sign
      while (bytes < 8 && value >> (8 * bytes - 1) != (value < 0 ? -1 : 0)) ++bytes;
      put(Opcode::kLong1);
      put_raw(static_cast<uint8_t>(bytes));
      frame_.append(reinterpret_cast<const char*>(&value), static_cast<std::size_t>(bytes));
    }
  }

  void save_data(const std::string& text) {
    if (is_shared(text)) {
      for (std::size_t i = 0; i < memo_.size(); ++i) {
        if (memo_[i] != text) continue;
        put(Opcode::kBinGet);
        put_raw(static_cast<uint8_t>(i));
        return;
      }
    }
    memo_.push_back(text);
    save_new(text);
    put(Opcode::kMemoize);
  }

  /// CPython has one object for "" and for each character below U+0100; other equal strings are several objects.
  static bool is_shared(const std::string& text) {
    const auto lead = text.empty() ? 0u : static_cast<unsigned char>(text[0]);
    return text.empty() || (text.size() == 1 && lead < 0x80) || (text.size() == 2 && (lead == 0xc2 || lead == 0xc3));
  }

  void save_new(const std::string& text) {
    const bool is_long = text.size() >= kFrameTarget;  // stands between the frames
    if (is_long) end_frame();
    std::string& out = is_long ? out_ : frame_;
    if (text.size() <= 0xff) {
      put(Opcode::kShortBinUnicode);
      put_raw(static_cast<uint8_t>(text.size()));
    } else {
      const auto size = static_cast<uint32_t>(text.size());
      out.push_back(static_cast<char>(Opcode::kBinUnicode));
      out.append(reinterpret_cast<const char*>(&size), sizeof(size));
    }
    out += text;
  }

  template <typename T>
  void save_data(const T&) {
    throw DataError("pair: expected an id that is an int, float, bool, None or str");
  }

  std::string out_, frame_;
  std::vector<std::string> memo_;
};

bool is_id(const train::Value& value) {
  return value.is_none() || std::holds_alternative<bool>(value.data) || std::holds_alternative<int64_t>(value.data) ||
         std::holds_alternative<double>(value.data) || std::holds_alternative<std::string>(value.data);
}

}  // namespace

std::string write_pair(const Pair& pair) { return Writer().run(pair); }

Pair read_pair(std::string_view pickle) {
  const train::StorageReader no_storage = [](const std::string&, std::size_t) -> c10::Storage {
    throw DataError("pair: a tensor has no place in it");
  };
  train::Value value;
  try {
    value = train::read_pickle(pickle, no_storage);
  } catch (const train::CheckpointError& error) {
    throw DataError(std::string("pair: ") + error.what());
  }
  auto* tuple = std::get_if<train::Tuple>(&value.data);
  if (tuple == nullptr || tuple->items.size() != 3) {
    throw DataError(fmt::format("pair: expected a tuple (image_id, text_id, text), found a {}{}", value.type_name(),
                                tuple == nullptr ? "" : fmt::format(" of {}", tuple->items.size())));
  }
  std::vector<train::Value>& items = tuple->items;
  for (std::size_t i = 0; i < 2; ++i) {
    if (!is_id(items[i])) throw DataError(fmt::format("pair: a {} is no id", items[i].type_name()));
  }
  auto* text = std::get_if<std::string>(&items[2].data);
  if (text == nullptr) throw DataError(fmt::format("pair: expected a str as the text, found {}", items[2].type_name()));
  return {std::move(items[0]), std::move(items[1]), std::move(*text)};
}

}  // namespace strobe::clip
