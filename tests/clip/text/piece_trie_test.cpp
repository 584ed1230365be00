#include "clip/text/piece_trie.h"

#include <gtest/gtest.h>

#include <string>

namespace strobe::clip {
namespace {

TEST(PieceTrie, FindsTheLongestPieceOfItsStart) {
  PieceTrie trie;
  trie.add(PieceTrie::kWord, U"ab", 1);
  trie.add(PieceTrie::kWord, U"abcd", 2);
  trie.add(PieceTrie::kContinuation, U"a", 3);
  EXPECT_EQ(trie.longest(PieceTrie::kWord, U"abcx").id, 1);
  EXPECT_EQ(trie.longest(PieceTrie::kWord, U"abcx").length, 2U);
  EXPECT_EQ(trie.longest(PieceTrie::kWord, U"abcde").id, 2);
  EXPECT_EQ(trie.longest(PieceTrie::kWord, U"a").length, 0U);
  EXPECT_EQ(trie.longest(PieceTrie::kContinuation, U"ab").id, 3);
  EXPECT_EQ(trie.longest(PieceTrie::kContinuation, U"").length, 0U);
}

TEST(PieceTrie, HoldsMorePiecesThanItStartedWithRoomFor) {
  PieceTrie trie;
  const auto piece = [](int i) { return std::u32string{0x4E00u + static_cast<char32_t>(i % 300), 0x10FFFFu - i}; };
  constexpr int kPieces = 100'000;
  for (int i = 0; i < kPieces; ++i) trie.add(PieceTrie::kWord, piece(i), i);
  int wrong = 0;
  for (int i = 0; i < kPieces; ++i) wrong += trie.longest(PieceTrie::kWord, piece(i)).id != i;
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace strobe::clip
