#include "clip/text/piece_trie.h"

#include <utility>

namespace strobe::clip {
namespace {

constexpr int kCodePointBits = 21;
constexpr std::size_t kFirstSlots = 1 << 16;  // enough for BERT's Chinese vocabulary without growing

uint64_t key_of(uint32_t node, char32_t c) { return (uint64_t{node} << kCodePointBits) | c; }

}  // namespace

PieceTrie::PieceTrie() : edges_(kFirstSlots), ids_(2, -1) {}

std::size_t PieceTrie::slot_of(uint64_t key) const {
  const std::size_t mask = edges_.size() - 1;
  std::size_t slot = (key * 0x9E3779B97F4A7C15u >> 32) & mask;  // Fibonacci hashing
  while (edges_[slot].key != kNoKey && edges_[slot].key != key) slot = (slot + 1) & mask;
  return slot;
}

uint32_t PieceTrie::follow(uint32_t node, char32_t c) const {
  const Edge& edge = edges_[slot_of(key_of(node, c))];
  return edge.key == kNoKey ? kNoNode : edge.node;
}

uint32_t PieceTrie::follow_or_make(uint32_t node, char32_t c) {
  const uint64_t key = key_of(node, c);
  std::size_t slot = slot_of(key);
  if (edges_[slot].key == kNoKey) {
    if (2 * ids_.size() >= edges_.size()) {  // each node but the two first has one edge to it
      grow();
      slot = slot_of(key);
    }
    edges_[slot] = {key, static_cast<uint32_t>(ids_.size())};
    ids_.push_back(-1);
  }
  return edges_[slot].node;
}

void PieceTrie::grow() {
  std::vector<Edge> old = std::exchange(edges_, std::vector<Edge>(2 * edges_.size()));
  for (const Edge& edge : old) {
    if (edge.key != kNoKey) edges_[slot_of(edge.key)] = edge;
  }
}

void PieceTrie::add(Start start, std::u32string_view piece, int64_t id) {
  uint32_t node = start;
  for (const char32_t c : piece) node = follow_or_make(node, c);
  ids_[node] = id;
}

PieceTrie::Match PieceTrie::longest(Start start, std::u32string_view text) const {
  Match best;
  uint32_t node = start;
  for (std::size_t i = 0; i < text.size(); ++i) {
    node = follow(node, text[i]);
    if (node == kNoNode) break;
    if (ids_[node] >= 0) best = {ids_[node], i + 1};
  }
  return best;
}

}  // namespace strobe::clip
