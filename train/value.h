// A tree of the plain Python values that checkpoints are made of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace strobe::train {

struct Value;
using List = std::vector<Value>;
struct Tuple {
  List items;
};
/// Keeps the order of insertion, as Python's dict does.
class Dict {
 public:
  Value& operator[](const std::string& key);              // inserts None where the key is new
  const Value* find(const std::string& key) const;        // null where there is none
  const Value& at(const std::string& key) const;          // throws train::CheckpointError naming the key
  bool contains(const std::string& key) const { return find(key) != nullptr; }
  std::size_t size() const { return items_.size(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

 private:
  std::vector<std::pair<Value, Value>> items_;  // keys are strings or ints
};

/// None, bool, int, float, str, list, tuple, dict or tensor. The accessors throw train::CheckpointError naming what was
/// expected and what was found.
struct Value {
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Tuple, Dict, at::Tensor> data;
};

}  // namespace strobe::train
