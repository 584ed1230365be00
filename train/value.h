// A tree of the plain Python values that checkpoints are made of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "strobe/types.h"

namespace strobe::train {

/// What reading, writing and looking into checkpoints throws. The text names the file or the key and what is wrong.
class CheckpointError : public Error {
 public:
  using Error::Error;
};

struct Value;
using List = std::vector<Value>;
struct Tuple {
  List items;
};
/// Python's bytes. A std::string in a Value is text and must be UTF-8.
struct Bytes {
  std::string data;
};
/// An object of a class that is not read, such as argparse.Namespace: its name alone. Cannot be written.
struct Opaque {
  std::string class_name;
};
using DictKey = std::variant<int64_t, std::string>;

/// Keeps the order of insertion, as Python's dict does.
class Dict {
 public:
  using Item = std::pair<DictKey, Value>;
  Value& operator[](const DictKey& key);        // inserts None where the key is new
  const Value* find(const DictKey& key) const;  // null where there is none; valid until the next insertion
  const Value& at(const DictKey& key) const;    // throws CheckpointError naming the key
  bool contains(const DictKey& key) const;
  std::size_t size() const;
  void mark_ordered() { is_ordered_ = true; }  // a collections.OrderedDict to Python; no other difference
  bool is_ordered() const { return is_ordered_; }
  std::vector<Item>::const_iterator begin() const;
  std::vector<Item>::const_iterator end() const;

 private:
  std::vector<Item> items_;
  std::unordered_map<DictKey, std::size_t> index_;
  bool is_ordered_ = false;
};

/// None, bool, int, float, str, bytes, list, tuple, dict, tensor or something opaque. The accessors throw
/// CheckpointError naming what was expected and what was found.
struct Value {
  std::variant<std::monostate, bool, int64_t, double, std::string, Bytes, List, Tuple, Dict, at::Tensor, Opaque> data;

  Value() = default;
  Value(bool value) : data(value) {}
  Value(int value) : data(int64_t{value}) {}
  Value(int64_t value) : data(value) {}
  Value(double value) : data(value) {}
  Value(const char* value) : data(std::string(value)) {}
  Value(std::string value) : data(std::move(value)) {}
  Value(Bytes value) : data(std::move(value)) {}
  Value(List value);
  Value(Tuple value);
  Value(Dict value);
  Value(at::Tensor value) : data(std::move(value)) {}
  Value(Opaque value) : data(std::move(value)) {}

  bool is_none() const { return std::holds_alternative<std::monostate>(data); }
  const char* type_name() const;  // as Python says it: "NoneType", "bool", "int", ..., "Tensor"; an opaque one's class

  bool as_bool() const;
  int64_t as_int() const;
  double as_double() const;  // an int will do too
  const std::string& as_string() const;
  const std::string& as_bytes() const;
  const List& as_list() const;  // of a list or a tuple
  const Dict& as_dict() const;
  const at::Tensor& as_tensor() const;
};

}  // namespace strobe::train
