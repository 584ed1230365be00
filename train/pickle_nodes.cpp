#include "train/pickle_nodes.h"

namespace strobe::train::pickle {
namespace {

constexpr int kMaxDepth = 200;
constexpr std::size_t kMaxValues = std::size_t{1} << 22;

class Converter {
 public:
  Value convert(const Node& node, int depth) {
    if (depth > kMaxDepth) throw CheckpointError("pickle: values are nested too deep");
    if (++values_ > kMaxValues) throw CheckpointError("pickle: too many values");
    if (const auto* value = std::get_if<Value>(&node.data)) return *value;
    if (const auto* list = std::get_if<ListNode>(&node.data)) return convert(list->items, depth);
    if (const auto* tuple = std::get_if<TupleNode>(&node.data)) return Tuple{convert(tuple->items, depth)};
    if (const auto* dict = std::get_if<DictNode>(&node.data)) return convert(*dict, depth);
    if (const auto* object = std::get_if<ObjectNode>(&node.data)) return convert(*object, depth);
    if (const auto* global = std::get_if<GlobalNode>(&node.data); global != nullptr && global->is_object_class) {
      return Opaque{global->name};
    }
    throw CheckpointError("pickle: a class or a storage has no place among the values");
  }

 private:
  List convert(const std::vector<Ref>& items, int depth) {
    List list;
    for (const Ref item : items) list.push_back(convert(*item, depth + 1));
    return list;
  }

  Dict convert(const DictNode& node, int depth) {
    Dict dict;
    if (node.is_ordered) dict.mark_ordered();
    for (const auto& [key, item] : node.items) dict[convert_key(*key)] = convert(*item, depth + 1);
    return dict;
  }

  Value convert(const ObjectNode& node, int depth) {
    if (!is_script_class(node.class_name)) return Opaque{node.class_name};
    return node.attributes == nullptr ? Value(Dict{}) : convert(*node.attributes, depth + 1);
  }

  static DictKey convert_key(const Node& node) {
    const auto* key = std::get_if<Value>(&node.data);
    if (key == nullptr) throw CheckpointError("pickle: expected an int or a str as a dict's key, found another");
    if (const auto* number = std::get_if<int64_t>(&key->data)) return *number;
    if (const auto* text = std::get_if<std::string>(&key->data)) return *text;
    throw CheckpointError(std::string("pickle: expected an int or a str as a dict's key, found ") + key->type_name());
  }

  std::size_t values_ = 0;
};

}  // namespace

bool is_script_class(std::string_view name) { return name.starts_with("__torch__."); }

Value to_value(const Node& node) { return Converter().convert(node, 0); }

}  // namespace strobe::train::pickle
