// What a pickle builds before it is a tree of values.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/core/Storage.h>

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "train/value.h"

namespace strobe::train::pickle {

struct Node;
using Ref = Node*;
struct ListNode {
  std::vector<Ref> items;
};
struct TupleNode {
  std::vector<Ref> items;
};
struct DictNode {
  std::vector<std::pair<Ref, Ref>> items;
  bool is_ordered = false;
};
struct GlobalNode {
  std::string name;
  bool is_object_class = false;  // of objects that are read as opaque
};
struct ObjectNode {
  std::string class_name;
  Ref attributes = nullptr;  // null: none
};
struct StorageNode {
  c10::Storage storage;
  c10::ScalarType dtype;
  int64_t numel;
};

/// Lists and dicts are filled after others may refer to them, so a pickle's machine works on references.
struct Node {
  std::variant<Value, ListNode, TupleNode, DictNode, GlobalNode, ObjectNode, StorageNode> data;
};

/// TorchScript's classes, whose attributes are read.
bool is_script_class(std::string_view name);

/// The tree below a node, shared parts copied; objects and classes as Objects::kOpaque says. Throws CheckpointError for
/// what is nested too deep (a list may hold itself), has too many values (a short pickle can name one list many times
/// over) or is no value.
Value to_value(const Node& node);

}  // namespace strobe::train::pickle
