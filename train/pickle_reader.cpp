#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <unordered_map>

#include "train/pickle.h"
#include "train/pickle_nodes.h"
#include "train/pickle_opcodes.h"

namespace strobe::train {
namespace {

using namespace pickle;

const StorageClass* find_storage_class(std::string_view global) {
  for (const StorageClass& known : kStorageClasses) {
    if (global == std::string("torch.") + known.name) return &known;
  }
  return nullptr;
}

template <std::size_t N>
bool is_among(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool is_value_global(std::string_view name) {
  static constexpr std::string_view kKnown[] = {"collections.OrderedDict",
                                                "torch.Size",
                                                "torch._utils._rebuild_tensor",
                                                "torch._utils._rebuild_tensor_v2",
                                                "torch._utils._rebuild_parameter",
                                                "_codecs.encode",
                                                "__builtin__.bytes"};
  return is_among(kKnown, name) || find_storage_class(name) != nullptr;
}

/// What TorchScript's archives wrap lists in.
bool is_script_wrapper(std::string_view name) { return name.starts_with("torch.jit._pickle."); }

/// Classes of things that are found beside weights and can do no harm as names.
bool is_object_class(std::string_view name) {
  static constexpr std::string_view kKnown[] = {
      "__builtin__.set",
      "__builtin__.frozenset",
      "argparse.Namespace",
      "collections.Counter",
      "datetime.datetime",
      "numpy.core.multiarray.scalar",
      "numpy.dtype",
      "numpy._core.multiarray.scalar",
      "numpy.ndarray",
      "numpy.core.multiarray._reconstruct",
      "pathlib.PosixPath",
      "numpy._core.multiarray._reconstruct",
      "pathlib.PurePosixPath",
      "pathlib.WindowsPath",
      "pathlib.PureWindowsPath",
      "torch.bfloat16",
      "torch.device",
      "torch.float16",
      "torch.float32",
      "torch.float64",
      "torch.int64",
      "types.SimpleNamespace",
  };
  return is_among(kKnown, name) || is_script_class(name) || is_script_wrapper(name);
}

class Reader {
 public:
  Reader(std::string_view data, const StorageReader& read_storage, Objects objects)
      : data_(data), read_storage_(read_storage), objects_(objects) {}

  Value run() {
    while (true) {
      const auto opcode = static_cast<Opcode>(take<uint8_t>());
      if (opcode == kStop) return to_value(*pop());
      execute(opcode);
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw CheckpointError(fmt::format("pickle, byte {}: {}", position_, what));
  }

  std::string_view take_bytes(std::size_t count) {
    if (count > data_.size() - position_) fail("it ends too early");
    const std::string_view bytes = data_.substr(position_, count);
    position_ += count;
    return bytes;
  }

  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, take_bytes(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view take_line() {
    const std::size_t end = data_.find('\n', position_);
    if (end == std::string_view::npos) fail("it ends too early");
    const std::string_view line = data_.substr(position_, end - position_);
    position_ = end + 1;
    return line;
  }

  template <typename T>
  void push(T data) {
    arena_.push_back(Node{std::move(data)});
    stack_.push_back(&arena_.back());
  }

  Ref pop() {
    const Ref top = peek();
    stack_.pop_back();
    return top;
  }

  Ref peek() const {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("the stack is empty");
    return stack_.back();
  }

  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) fail("there is no mark");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }

  std::vector<Ref> pop_many(std::size_t count) {
    std::vector<Ref> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }

  template <typename T>
  T& top_as(const char* expected) {
    if (T* found = std::get_if<T>(&peek()->data)) return *found;
    fail(std::string("expected a ") + expected);
  }

  template <typename T>
  const T& leaf(const Node& node, const char* expected) const {
    if (const auto* value = std::get_if<Value>(&node.data)) {
      if (const T* found = std::get_if<T>(&value->data)) return *found;
    }
    fail(std::string("expected ") + expected);
  }

  const std::vector<Ref>& tuple_items(const Node& node) const {
    if (const auto* tuple = std::get_if<TupleNode>(&node.data)) return tuple->items;
    fail("expected a tuple");
  }

  std::vector<int64_t> int_tuple(const Node& node) const {
    std::vector<int64_t> numbers;
    for (const Ref item : tuple_items(node)) numbers.push_back(leaf<int64_t>(*item, "an int"));
    return numbers;
  }

  void execute(Opcode opcode) {
    switch (opcode) {
      case kProto:
        if (const int protocol = take<uint8_t>(); protocol < kProtocol || protocol > kHighestProtocol) {
          fail(fmt::format("expected protocol {} to {}, found {}", kProtocol, kHighestProtocol, protocol));
        }
        return;
      case kFrame:  // how many bytes to read at once
        take<uint64_t>();
        return;
      case kMark:
        return marks_.push_back(stack_.size());
      case kNone:
        return push(Value());
      case kNewTrue:
        return push(Value(true));
      case kNewFalse:
        return push(Value(false));
      case kBinInt:
        return push(Value(int64_t{take<int32_t>()}));
      case kBinInt1:
        return push(Value(int64_t{take<uint8_t>()}));
      case kBinInt2:
        return push(Value(int64_t{take<uint16_t>()}));
      case kLong1:
        return push(Value(take_long()));
      case kBinFloat:
        return push(Value(std::bit_cast<double>(__builtin_bswap64(take<uint64_t>()))));
      case kBinUnicode:
        return push(Value(std::string(take_bytes(take<uint32_t>()))));
      case kShortBinUnicode:
        return push(Value(std::string(take_bytes(take<uint8_t>()))));
      case kBinUnicode8:
        return push(Value(std::string(take_bytes(take<uint64_t>()))));
      case kShortBinString:
        return push(Value(std::string(take_bytes(take<uint8_t>()))));
      case kEmptyList:
        return push(ListNode{});
      case kEmptyTuple:
        return push(TupleNode{});
      case kEmptyDict:
        return push(DictNode{});
      case kTuple:
        return push(TupleNode{pop_to_mark()});
      case kTuple1:
        return push(TupleNode{pop_many(1)});
      case kTuple2:
        return push(TupleNode{pop_many(2)});
      case kTuple3:
        return push(TupleNode{pop_many(3)});
      case kAppend:
        return append(pop_many(1));
      case kAppends:
        return append(pop_to_mark());
      case kSetItem:
        return set_items(pop_many(2));
      case kSetItems:
        return set_items(pop_to_mark());
      case kBinPut:
        return put_memo(take<uint8_t>());
      case kLongBinPut:
        return put_memo(take<uint32_t>());
      case kMemoize:
        return put_memo(static_cast<uint32_t>(memo_.size()));
      case kBinGet:
        return get_memo(take<uint8_t>());
      case kLongBinGet:
        return get_memo(take<uint32_t>());
      case kGlobal: {
        const std::string_view module = take_line();
        return global(module, take_line());
      }
      case kStackGlobal: {
        const std::vector<Ref> names = pop_many(2);
        return global(leaf<std::string>(*names[0], "a str"), leaf<std::string>(*names[1], "a str"));
      }
      case kBinPersId:
        return persistent();
      case kReduce:
        return reduce();
      case kNewObj:
        return new_object();
      case kBuild:
        return build();
      case kStop:
        break;
    }
    --position_;
    fail(fmt::format("opcode 0x{:02x} has no place among plain values and tensors", static_cast<int>(opcode)));
  }

  int64_t take_long() {
    const std::string_view bytes = take_bytes(take<uint8_t>());
    if (bytes.empty()) return 0;
    if (bytes.size() > sizeof(int64_t)) fail("expected an int of 64 bits, found a longer one");
    int64_t value = static_cast<signed char>(bytes.back()) < 0 ? -1 : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }

  void append(const std::vector<Ref>& items) {
    auto& list = top_as<ListNode>("list").items;
    list.insert(list.end(), items.begin(), items.end());
  }

  void set_items(const std::vector<Ref>& items) {
    auto& dict = top_as<DictNode>("dict").items;
    if (items.size() % 2 != 0) fail("a dict's key has no value");
    for (std::size_t i = 0; i < items.size(); i += 2) dict.emplace_back(items[i], items[i + 1]);
  }

  void put_memo(uint32_t index) { memo_[index] = peek(); }

  void get_memo(uint32_t index) {
    const auto entry = memo_.find(index);
    if (entry == memo_.end()) fail(fmt::format("nothing is remembered as {}", index));
    stack_.push_back(entry->second);
  }

  void global(std::string_view module, std::string_view attribute) {
    std::string name = fmt::format("{}.{}", module, attribute);
    const bool is_object = objects_ == Objects::kOpaque && is_object_class(name);
    if (!is_object && !is_value_global(name)) {
      fail(fmt::format("refused the global \"{}\": only plain values and tensors are read", name));
    }
    push(GlobalNode{std::move(name), is_object});
  }

  /// ("storage", class, name, location, numel)
  void persistent() {
    const Ref id = pop();
    const auto& fields = tuple_items(*id);
    if (fields.size() != 5 || leaf<std::string>(*fields[0], "a str") != "storage") fail("expected a storage");
    const auto* type = std::get_if<GlobalNode>(&fields[1]->data);
    const StorageClass* known = type == nullptr ? nullptr : find_storage_class(type->name);
    if (known == nullptr) fail("expected a storage class");
    const std::string& name = leaf<std::string>(*fields[2], "a str");
    const int64_t numel = leaf<int64_t>(*fields[4], "an int");
    const auto item = static_cast<int64_t>(c10::elementSize(known->dtype));
    if (numel < 0 || numel > std::numeric_limits<int64_t>::max() / item) fail("a storage's size is out of range");
    push(StorageNode{storage(name, static_cast<std::size_t>(numel * item)), known->dtype, numel});
  }

  c10::Storage storage(const std::string& name, std::size_t bytes) {
    auto entry = storages_.find(name);
    if (entry == storages_.end()) entry = storages_.emplace(name, read_storage_(name, bytes)).first;
    if (entry->second.nbytes() < bytes) fail("storage " + name + " is smaller than the pickle says");
    return entry->second;
  }

  void reduce() {
    const Ref arguments = pop();
    const Ref function = pop();
    const auto* global = std::get_if<GlobalNode>(&function->data);
    if (global == nullptr) fail("expected a function");
    const auto& items = tuple_items(*arguments);
    const auto require = [&](std::size_t count) {
      if (items.size() < count)
        fail(fmt::format("{}: expected {} arguments, found {}", global->name, count, items.size()));
    };
    if (is_script_wrapper(global->name)) return require(1), stack_.push_back(items[0]);
    if (global->is_object_class) return push(ObjectNode{global->name});
    if (global->name == "collections.OrderedDict" && items.empty()) return push(DictNode{{}, /*is_ordered=*/true});
    if (global->name == "__builtin__.bytes" && items.empty()) return push(Value(Bytes{}));
    if (global->name == "torch.Size") return require(1), push(TupleNode{tuple_items(*items[0])});
    if (global->name == "torch._utils._rebuild_tensor") return require(4), rebuild_tensor(items);
    if (global->name == "torch._utils._rebuild_tensor_v2") return require(6), rebuild_tensor(items);
    if (global->name == "torch._utils._rebuild_parameter") return require(3), stack_.push_back(items[0]);
    if (global->name == "_codecs.encode") return require(2), push(Value(latin1(leaf<std::string>(*items[0], "a str"))));
    fail(fmt::format("refused to call {} with {} arguments", global->name, items.size()));
  }

  /// (storage, offset, size, stride, ...), refused where an element would lie outside the storage.
  void rebuild_tensor(const std::vector<Ref>& items) {
    const auto* source = std::get_if<StorageNode>(&items[0]->data);
    if (source == nullptr) fail("expected a storage");
    const int64_t offset = leaf<int64_t>(*items[1], "an int");
    const std::vector<int64_t> sizes = int_tuple(*items[2]), strides = int_tuple(*items[3]);
    if (sizes.size() != strides.size() || offset < 0) fail("a tensor's shape is not consistent");
    bool is_empty = false;
    __int128 last = offset;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] < 0 || strides[i] < 0) fail("a tensor's shape is negative");
      is_empty |= sizes[i] == 0;
      last += static_cast<__int128>(sizes[i] - 1) * strides[i];
      if (!is_empty && last >= source->numel) fail("a tensor reaches beyond its storage");
    }
    if (is_empty ? offset > source->numel : last >= source->numel) fail("a tensor reaches beyond its storage");
    at::Tensor tensor = at::empty({0}, at::dtype(source->dtype));
    tensor.set_(source->storage, offset, sizes, strides);
    push(Value(std::move(tensor)));
  }

  Bytes latin1(const std::string& text) const {
    Bytes bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto lead = static_cast<unsigned char>(text[i]);
      if (lead < 0x80) {
        bytes.data.push_back(text[i]);
      } else if ((lead == 0xc2 || lead == 0xc3) && i + 1 < text.size()) {
        bytes.data.push_back(static_cast<char>((lead & 3) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3f)));
      } else {
        fail("bytes: expected characters below U+0100");
      }
    }
    return bytes;
  }

  void new_object() {
    pop();  // arguments
    const Ref type = pop();
    const auto* global = std::get_if<GlobalNode>(&type->data);
    if (global == nullptr || !global->is_object_class) fail("expected a class");
    push(ObjectNode{global->name});
  }

  /// Attributes of a dict object, such as state_dict's _metadata, are no part of the tree.
  void build() {
    const Ref attributes = pop();
    if (auto* object = std::get_if<ObjectNode>(&peek()->data)) {
      object->attributes = attributes;
    } else {
      top_as<DictNode>("dict to set attributes of");
    }
  }

  std::string_view data_;
  const StorageReader& read_storage_;
  Objects objects_;
  std::size_t position_ = 0;
  std::deque<Node> arena_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<uint32_t, Ref> memo_;
  std::unordered_map<std::string, c10::Storage> storages_;
};

}  // namespace

Value read_pickle(std::string_view data, const StorageReader& read_storage, Objects objects) {
  return Reader(data, read_storage, objects).run();
}

}  // namespace strobe::train
