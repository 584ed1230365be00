#include "train/value.h"

namespace strobe::train {
namespace {

std::string describe(const DictKey& key) {
  if (const auto* number = std::get_if<int64_t>(&key)) return std::to_string(*number);
  return "\"" + std::get<std::string>(key) + "\"";
}

template <typename T>
const T& expect(const Value& value, const char* expected) {
  if (const T* found = std::get_if<T>(&value.data)) return *found;
  throw CheckpointError(std::string("checkpoint value: expected ") + expected + ", found " + value.type_name());
}

}  // namespace

Value& Dict::operator[](const DictKey& key) {
  const auto [position, is_new] = index_.try_emplace(key, items_.size());
  if (is_new) items_.emplace_back(key, Value());
  return items_[position->second].second;
}

const Value* Dict::find(const DictKey& key) const {
  const auto position = index_.find(key);
  return position == index_.end() ? nullptr : &items_[position->second].second;
}

const Value& Dict::at(const DictKey& key) const {
  if (const Value* value = find(key)) return *value;
  throw CheckpointError("checkpoint dict: expected the key " + describe(key) + ", found none");
}

bool Dict::contains(const DictKey& key) const { return find(key) != nullptr; }
std::size_t Dict::size() const { return items_.size(); }
std::vector<Dict::Item>::const_iterator Dict::begin() const { return items_.begin(); }
std::vector<Dict::Item>::const_iterator Dict::end() const { return items_.end(); }

Value::Value(List value) : data(std::move(value)) {}
Value::Value(Tuple value) : data(std::move(value)) {}
Value::Value(Dict value) : data(std::move(value)) {}

const char* Value::type_name() const {
  if (const auto* opaque = std::get_if<Opaque>(&data)) return opaque->class_name.c_str();
  static constexpr const char* kNames[] = {"NoneType", "bool", "int",   "float", "str",
                                           "bytes",    "list", "tuple", "dict",  "Tensor"};
  static_assert(std::size(kNames) + 1 == std::variant_size_v<decltype(data)>);
  return kNames[data.index()];
}

bool Value::as_bool() const { return expect<bool>(*this, "bool"); }
int64_t Value::as_int() const { return expect<int64_t>(*this, "int"); }

double Value::as_double() const {
  if (const auto* number = std::get_if<int64_t>(&data)) return static_cast<double>(*number);
  return expect<double>(*this, "float");
}

const std::string& Value::as_string() const { return expect<std::string>(*this, "str"); }
const std::string& Value::as_bytes() const { return expect<Bytes>(*this, "bytes").data; }

const List& Value::as_list() const {
  if (const auto* tuple = std::get_if<Tuple>(&data)) return tuple->items;
  return expect<List>(*this, "list");
}

const Dict& Value::as_dict() const { return expect<Dict>(*this, "dict"); }
const at::Tensor& Value::as_tensor() const { return expect<at::Tensor>(*this, "Tensor"); }

}  // namespace strobe::train
