#include "nmt/split.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "nmt/shuffle.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

/// Disjoint sets with path halving; the root is the smallest member, so that the result does not depend on a hash's
/// order.
class DisjointSets {
 public:
  explicit DisjointSets(std::size_t size) : parent_(size) { std::iota(parent_.begin(), parent_.end(), std::size_t{0}); }

  std::size_t root(std::size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void join(std::size_t a, std::size_t b) {
    a = root(a);
    b = root(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<std::size_t> parent_;
};

/// Indices of the pairs, group by group, in order of each group's first pair.
std::vector<std::vector<std::size_t>> groups_of(const std::vector<SentencePair>& pairs) {
  DisjointSets sets(pairs.size());
  std::unordered_map<std::string_view, std::size_t> first_source, first_target;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    sets.join(i, first_source.try_emplace(pairs[i].source, i).first->second);
    sets.join(i, first_target.try_emplace(pairs[i].target, i).first->second);
  }
  std::vector<std::vector<std::size_t>> groups;
  std::unordered_map<std::size_t, std::size_t> number_of_root;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto [entry, is_new] = number_of_root.try_emplace(sets.root(i), groups.size());
    if (is_new) groups.emplace_back();
    groups[entry->second].push_back(i);
  }
  return groups;
}

}  // namespace

HeldOut usual_held_out(int64_t pairs) {
  const HeldOut most;
  const int64_t tenth = std::max<int64_t>(pairs / 10, 1);
  return {std::min(tenth, most.dev), std::min(tenth, most.test)};
}

Split split_pairs(std::vector<SentencePair> pairs, const HeldOut& wanted, uint64_t seed) {
  std::vector<std::vector<std::size_t>> groups = groups_of(pairs);
  std::mt19937_64 engine(seed);
  shuffle(groups, engine);
  Split split;
  const auto fits = [](const std::vector<SentencePair>& set, const std::vector<std::size_t>& group, int64_t size) {
    return static_cast<int64_t>(set.size() + group.size()) <= size;
  };
  for (const std::vector<std::size_t>& group : groups) {
    std::vector<SentencePair>* set = &split.train;
    if (fits(split.dev, group, wanted.dev)) {
      set = &split.dev;
    } else if (fits(split.test, group, wanted.test)) {
      set = &split.test;
    }
    for (const std::size_t i : group) set->push_back(std::move(pairs[i]));
  }
  if (split.train.empty() || split.dev.empty() || split.test.empty()) {
    throw Error("split_pairs: pairs: expected enough for train, dev (" + std::to_string(wanted.dev) + ") and test (" +
                std::to_string(wanted.test) + ") without a sentence in common, found " + std::to_string(pairs.size()) +
                " in " + std::to_string(groups.size()) + " groups that share sentences");
  }
  return split;
}

int64_t count_shared(const std::vector<SentencePair>& pairs, const std::vector<SentencePair>& others) {
  std::unordered_set<std::string_view> sources, targets;
  for (const SentencePair& pair : others) {
    sources.insert(pair.source);
    targets.insert(pair.target);
  }
  return std::count_if(pairs.begin(), pairs.end(), [&](const SentencePair& pair) {
    return sources.contains(pair.source) || targets.contains(pair.target);
  });
}

}  // namespace strobe::nmt
