#include "nmt/sentencepiece_file.h"

#include <cstdint>
#include <optional>

namespace strobe::nmt {
namespace {

// Field numbers and values of sentencepiece_model.proto.
constexpr uint64_t kTrainerField = 2, kNormalizerField = 3;  // of ModelProto
constexpr uint64_t kModelTypeField = 3, kWord = 3;           // of TrainerSpec

enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      // of a varint
  std::string_view bytes;  // of what is length-delimited
};

/// The fields of one message, in order.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  bool done() const { return rest_.empty(); }

  /// Null where the message is malformed.
  std::optional<Field> next() {
    const uint64_t tag = varint();
    Field field{tag / 8, 0, {}};
    switch (tag % 8) {
      case kVarint:
        field.value = varint();
        return field;
      case kLengthDelimited:
        return take(varint(), field.bytes) ? std::optional(field) : std::nullopt;
      case kFixed64:
        return take(8, field.bytes) ? std::optional(field) : std::nullopt;
      case kFixed32:
        return take(4, field.bytes) ? std::optional(field) : std::nullopt;
      default:
        return std::nullopt;
    }
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }
  bool take(uint64_t length, std::string_view& bytes) {
    if (length > rest_.size()) return false;
    bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
  }

  std::string_view rest_;
};

bool is_word_model(std::string_view trainer_spec) {
  bool words = false;
  for (Fields fields(trainer_spec); !fields.done();) {
    const std::optional<Field> field = fields.next();
    if (!field) return false;
    if (field->number == kModelTypeField) words = field->value == kWord;
  }
  return words;
}

}  // namespace

SentencePieceFile inspect_sentencepiece(std::string_view bytes) {
  SentencePieceFile file;
  bool has_trainer = false, has_normalizer = false;
  for (Fields fields(bytes); !fields.done();) {
    const std::optional<Field> field = fields.next();
    if (!field) return {};
    if (field->number == kTrainerField) {
      has_trainer = true;
      file.words = is_word_model(field->bytes);
    }
    has_normalizer = has_normalizer || field->number == kNormalizerField;
  }
  file.complete = has_trainer && has_normalizer;
  return file;
}

}  // namespace strobe::nmt
