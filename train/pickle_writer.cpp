#include <bit>
#include <cstring>
#include <limits>
#include <map>

#include "train/pickle.h"
#include "train/pickle_opcodes.h"

namespace strobe::train {
namespace {

using namespace pickle;

static_assert(std::endian::native == std::endian::little, "storages are written as they lie in memory");

/// Whether the text is UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int extra = lead < 0x80 ? 0 : lead < 0xc2 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : -1;
    if (extra < 0 || i + static_cast<std::size_t>(extra) >= text.size()) return false;
    uint32_t code = extra == 0 ? lead : lead & (0x3fu >> extra);
    for (int k = 1; k <= extra; ++k) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3fu);
    }
    if ((extra == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
        (extra == 3 && (code < 0x10000 || code > 0x10ffff))) {
      return false;
    }
    i += static_cast<std::size_t>(extra) + 1;
  }
  return true;
}

class Writer {
 public:
  Pickle run(const Value& root) && {
    put(kProto);
    out_.push_back(kProtocol);
    write(root);
    put(kStop);
    return {std::move(out_), std::move(storages_)};
  }

 private:
  void put(Opcode opcode) { out_.push_back(static_cast<char>(opcode)); }

  template <typename T>
  void put_raw(T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out_.append(bytes, sizeof(T));
  }

  void global(const char* module, const char* name) {
    put(kGlobal);
    out_.append(module).append("\n").append(name).append("\n");
  }

  void write(const Value& value) {
    std::visit([this](const auto& data) { write(data); }, value.data);
  }

  void write(std::monostate) { put(kNone); }
  void write(bool value) { put(value ? kNewTrue : kNewFalse); }

  void write(int64_t value) {
    if (value >= 0 && value <= 0xff) {
      put(kBinInt1);
      put_raw(static_cast<uint8_t>(value));
    } else if (value >= 0 && value <= 0xffff) {
      put(kBinInt2);
      put_raw(static_cast<uint16_t>(value));
    } else if (value == static_cast<int32_t>(value)) {
      put(kBinInt);
      put_raw(static_cast<int32_t>(value));
    } else {
      put(kLong1);
      put_raw(static_cast<uint8_t>(sizeof(value)));
      put_raw(value);
    }
  }

  void write(double value) {
    put(kBinFloat);
    put_raw(__builtin_bswap64(std::bit_cast<uint64_t>(value)));
  }

  void write(const std::string& text) {
    if (!is_utf8(text)) throw CheckpointError("checkpoint value: expected a str in UTF-8, found other bytes");
    if (text.size() > std::numeric_limits<uint32_t>::max()) {
      throw CheckpointError("checkpoint value: expected a str below 4 GiB, found " + std::to_string(text.size()) +
                            " bytes");
    }
    put(kBinUnicode);
    put_raw(static_cast<uint32_t>(text.size()));
    out_.append(text);
  }

  /// Protocol 2 has no bytes: Python encodes each as the character of the same number.
  void write(const Bytes& bytes) {
    std::string latin1;
    for (const char c : bytes.data) {
      const auto code = static_cast<unsigned char>(c);
      if (code < 0x80) {
        latin1.push_back(c);
      } else {
        latin1.push_back(static_cast<char>(0xc0 | code >> 6));
        latin1.push_back(static_cast<char>(0x80 | (code & 0x3f)));
      }
    }
    global("_codecs", "encode");
    write(latin1);
    write(std::string("latin1"));
    put(kTuple2);
    put(kReduce);
  }

  void write(const List& list) {
    put(kEmptyList);
    put(kMark);
    for (const Value& item : list) write(item);
    put(kAppends);
  }

  void write(const Tuple& tuple) {
    put(kMark);
    for (const Value& item : tuple.items) write(item);
    put(kTuple);
  }

  void write(c10::IntArrayRef sizes) {
    put(kMark);
    for (const int64_t size : sizes) write(size);
    put(kTuple);
  }

  void write(const Dict& dict) {
    if (dict.is_ordered()) {
      write_ordered_dict();
    } else {
      put(kEmptyDict);
    }
    put(kMark);
    for (const auto& [key, value] : dict) {
      std::visit([this](const auto& data) { write(data); }, key);
      write(value);
    }
    put(kSetItems);
  }

  void write(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_quantized() || tensor.is_meta()) {
      throw CheckpointError("checkpoint value: expected a dense tensor, found another");
    }
    global("torch._utils", "_rebuild_tensor_v2");
    put(kMark);
    write_storage(tensor);
    write(tensor.storage_offset());
    write(tensor.sizes());
    write(tensor.strides());
    write(false);          // requires_grad
    write_ordered_dict();  // backward hooks: none
    put(kTuple);
    put(kReduce);
  }

  void write_ordered_dict() {
    global("collections", "OrderedDict");
    put(kEmptyTuple);
    put(kReduce);
  }

  void write(const Opaque& object) {
    throw CheckpointError("checkpoint value: expected a plain value, found " + object.class_name);
  }

  void write_storage(const at::Tensor& tensor) {
    const c10::Storage& storage = tensor.storage();
    put(kMark);
    write(std::string("storage"));
    global("torch", storage_class(tensor.scalar_type()));
    write(std::to_string(storage_key(storage, tensor.scalar_type())));
    write(std::string("cpu"));
    write(static_cast<int64_t>(storage.nbytes() / tensor.element_size()));
    put(kTuple);
    put(kBinPersId);
  }

  /// Python gives a storage one dtype: views of two dtypes are written apart.
  std::size_t storage_key(const c10::Storage& storage, c10::ScalarType dtype) {
    const auto [position, is_new] = keys_.try_emplace({storage.unsafeGetStorageImpl(), dtype}, storages_.size());
    if (is_new) storages_.push_back(storage);
    return position->second;
  }

  static const char* storage_class(c10::ScalarType dtype) {
    for (const StorageClass& known : kStorageClasses) {
      if (known.dtype == dtype) return known.name;
    }
    throw CheckpointError(std::string("checkpoint value: tensors of dtype ") + c10::toString(dtype) +
                          " cannot be written");
  }

  std::string out_;
  std::vector<c10::Storage> storages_;
  std::map<std::pair<const void*, c10::ScalarType>, std::size_t> keys_;
};

}  // namespace

Pickle write_pickle(const Value& root) { return Writer().run(root); }

}  // namespace strobe::train
