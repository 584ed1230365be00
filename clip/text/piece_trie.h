// The pieces of a vocabulary, for longest matches in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace strobe::clip {

class PieceTrie {
 public:
  enum Start : uint32_t { kWord = 0, kContinuation = 1 };  // "##" pieces continue a word

  PieceTrie();

  /// `piece` without its "##". A piece that is added twice has the later id.
  void add(Start start, std::u32string_view piece, int64_t id);

  struct Match {
    int64_t id = -1;         // -1: no piece begins the text
    std::size_t length = 0;  // code points
  };
  Match longest(Start start, std::u32string_view text) const;

 private:
  struct Edge {
    uint64_t key = kNoKey;
    uint32_t node = 0;
  };
  static constexpr uint64_t kNoKey = ~uint64_t{0};
  static constexpr uint32_t kNoNode = ~uint32_t{0};

  std::size_t slot_of(uint64_t key) const;  // where the edge is or would be
  uint32_t follow(uint32_t node, char32_t c) const;
  uint32_t follow_or_make(uint32_t node, char32_t c);
  void grow();

  std::vector<Edge> edges_;   // open addressing, a power of two of slots, at most half full
  std::vector<int64_t> ids_;  // of each node; -1: no piece ends there
};

}  // namespace strobe::clip
