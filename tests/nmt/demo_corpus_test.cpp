#include "nmt/demo_corpus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "nmt/text.h"

namespace strobe::nmt {
namespace {

TEST(DemoCorpus, GivesEveryPhraseOneTranslation) {
  const std::vector<SentencePair> pairs = demo_pairs(25000, 1);
  ASSERT_EQ(pairs.size(), 25000u);
  std::set<std::string> sources, targets;
  for (const SentencePair& pair : pairs) {
    EXPECT_TRUE(sources.insert(pair.source).second) << pair.source;
    EXPECT_TRUE(targets.insert(pair.target).second) << pair.target;
    EXPECT_FALSE(pair.source.empty() || pair.target.empty());
    EXPECT_TRUE(is_valid_utf8(pair.source) && is_valid_utf8(pair.target));
    EXPECT_EQ(pair.source.find_first_of("\t\n"), std::string::npos);
    EXPECT_EQ(pair.target.find_first_of("\t\n"), std::string::npos);
  }
}

TEST(DemoCorpus, IsAFunctionOfTheSeed) {
  const auto sides = [](uint64_t seed) {
    std::vector<std::string> result;
    for (const SentencePair& pair : demo_pairs(500, seed)) result.insert(result.end(), {pair.source, pair.target});
    return result;
  };
  EXPECT_EQ(sides(1), sides(1));
  EXPECT_NE(sides(1), sides(2));
}

TEST(DemoCorpus, HoldsEveryKindOfPhrase) {
  const std::vector<SentencePair> pairs = demo_pairs(5000, 1);
  const auto share = [&](const char* source, const char* target) {
    const auto has = [&](const SentencePair& pair) {
      return pair.source.find(source) != std::string::npos && pair.target.find(target) != std::string::npos;
    };
    return static_cast<double>(std::count_if(pairs.begin(), pairs.end(), has)) / static_cast<double>(pairs.size());
  };
  EXPECT_GT(share(" thousand", "千"), 0.02);     // spelt out
  EXPECT_GT(share("Monday, ", "星期一"), 0.02);  // dates
  EXPECT_GT(share(" PM", ":"), 0.02);            // with times
  EXPECT_GT(share(" euros", "欧元"), 0.005);
  EXPECT_GT(share("$", "US$"), 0.001);
  EXPECT_GT(share(" kilometers", "公里"), 0.003);
  EXPECT_GT(share(" ago", "前"), 0.01);  // relative times
  EXPECT_GT(share("in ", "后"), 0.01);
}

}  // namespace
}  // namespace strobe::nmt
