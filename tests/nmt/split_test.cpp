#include "nmt/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>

#include "nmt/shuffle.h"
#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::HasSubstr;
using Rows = std::vector<std::pair<std::string, std::string>>;

std::string numbered(const char* word, uint64_t number) { return std::string(word).append(std::to_string(number)); }
SentencePair numbered_pair(uint64_t number) { return {numbered("s", number), numbered("t", number)}; }

/// Rows that often share a side with others, as sentence pairs collected by many people do.
std::vector<SentencePair> corpus(std::size_t size, uint64_t sentences) {
  std::mt19937_64 engine(11);
  std::vector<SentencePair> pairs(size);
  for (SentencePair& pair : pairs) {
    const uint64_t meaning = draw_below(engine, sentences);
    pair.source = numbered("source ", meaning * 3 + draw_below(engine, 3));
    pair.target = numbered("target ", meaning * 3 + draw_below(engine, 3));
  }
  return pairs;
}

Rows rows(const std::vector<const std::vector<SentencePair>*>& sets) {
  Rows result;
  for (const auto* set : sets) {
    for (const SentencePair& pair : *set) result.emplace_back(pair.source, pair.target);
  }
  return result;
}

Rows sorted(Rows rows) {
  std::sort(rows.begin(), rows.end());
  return rows;
}

TEST(Split, SharesNoSentenceOnEitherSideAndLosesNoPair) {
  const std::vector<SentencePair> pairs = corpus(30000, 20000);
  const Split split = split_pairs(pairs, {1000, 700}, 1);
  EXPECT_EQ(split.dev.size(), 1000u);
  EXPECT_EQ(split.test.size(), 700u);
  EXPECT_EQ(count_shared(split.dev, split.train), 0);
  EXPECT_EQ(count_shared(split.test, split.train), 0);
  EXPECT_EQ(count_shared(split.test, split.dev), 0);
  EXPECT_EQ(sorted(rows({&split.train, &split.dev, &split.test})), sorted(rows({&pairs})));
}

TEST(Split, KeepsChainsOfSharedSidesTogether) {
  // a-x, b-x, b-y, c-y: a and c meet only through others.
  const std::vector<SentencePair> chain{{"a", "x"}, {"b", "x"}, {"b", "y"}, {"c", "y"}};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<SentencePair> pairs = chain;
    for (uint64_t i = 0; i < 40; ++i) pairs.push_back(numbered_pair(i));
    const Split split = split_pairs(pairs, {4, 4}, seed);
    const std::vector<std::vector<SentencePair>> sets{split.train, split.dev, split.test};
    EXPECT_EQ(std::count_if(sets.begin(), sets.end(), [&](const auto& set) { return count_shared(set, chain) > 0; }),
              1);
  }
}

TEST(Split, IsAFunctionOfTheSeed) {
  const std::vector<SentencePair> pairs = corpus(2000, 1500);
  const Split first = split_pairs(pairs, {100, 100}, 1), again = split_pairs(pairs, {100, 100}, 1),
              other = split_pairs(pairs, {100, 100}, 2);
  EXPECT_EQ(rows({&first.train, &first.dev, &first.test}), rows({&again.train, &again.dev, &again.test}));
  EXPECT_NE(rows({&first.test}), rows({&other.test}));
  EXPECT_NE(rows({&first.test}), rows({&first.dev}));
}

TEST(Split, ASmallCorpusGivesATenth) {
  std::vector<SentencePair> pairs;
  for (uint64_t i = 0; i < 50; ++i) pairs.push_back(numbered_pair(i));
  const Split split = split_pairs(pairs, usual_held_out(50), 1);
  EXPECT_EQ(split.train.size(), 40u);
  EXPECT_EQ(split.dev.size(), 5u);
  EXPECT_EQ(split.test.size(), 5u);

  pairs.resize(3);
  const Split least = split_pairs(pairs, usual_held_out(3), 1);
  EXPECT_EQ(least.train.size() + least.dev.size() + least.test.size(), 3u);
  EXPECT_EQ(usual_held_out(9999).dev, 999);
  EXPECT_EQ(usual_held_out(10000).test, 1000);
  EXPECT_EQ(usual_held_out(1000000).dev, 1000);
}

TEST(Split, RefusesACorpusThatCannotBeCut) {
  EXPECT_THAT(message_of<Error>([] {
                split_pairs({{"a", "x"}, {"b", "y"}}, {1, 1}, 1);
              }),
              HasSubstr("found 2 in 2 groups"));
  EXPECT_THAT(message_of<Error>([] {
                split_pairs(std::vector<SentencePair>(30, {"a", "x"}), {3, 3}, 1);
              }),
              HasSubstr("found 30 in 1 groups"));
}

TEST(Split, CountsPairsThatShareASide) {
  const std::vector<SentencePair> train{{"a", "x"}, {"b", "y"}};
  EXPECT_EQ(count_shared({{"a", "z"}, {"c", "y"}, {"a", "x"}, {"c", "z"}, {"x", "a"}}, train), 3);
}

}  // namespace
}  // namespace strobe::nmt
