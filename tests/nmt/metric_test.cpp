// Golden values of chrF and of the bootstrap; parity_test.py holds them against the Python package.
#include "nmt/metric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nmt/bootstrap.h"
#include "nmt/pcg64.h"
#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::HasSubstr;
using Texts = std::vector<std::string>;

const Texts kReferences = {"the cat sat on a mat", "the dog barks", "It is very good.", "she left early"};
const Texts kHypotheses = {"the cat sat on the mat", "a dog , barks", "it is (very) good.", "he left early today"};
const Texts kOthers = {"the cat sits on mat", "the dog barks", "it very good.", "she left"};

SentenceCounts counts_of(std::string_view name, const Texts& hypotheses) {
  return sentence_counts(*metric(name, BleuTokenizer::k13a), hypotheses, kReferences);
}

double score_of(std::string_view name) {
  return metric(name, BleuTokenizer::k13a)->score(sum(counts_of(name, kHypotheses)));
}

TEST(Chrf, AgreesWithSacrebleu) {
  EXPECT_NEAR(score_of("chrf"), 60.10813429801418, 1e-11);
  EXPECT_NEAR(score_of("chrf++"), 58.201523359697184, 1e-11);
  EXPECT_NEAR(score_of("bleu"), 23.61958803981311, 1e-11);
  EXPECT_EQ(signature(*metric("chrf", BleuTokenizer::kZh)),
            "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0");
  EXPECT_EQ(signature(*metric("chrf++", BleuTokenizer::kZh), resampling({})),
            "nrefs:1|bs:1000|seed:12345|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0");
  EXPECT_EQ(metric("chrf++", BleuTokenizer::kZh)->name(), "chrF2++");
}

TEST(Chrf, IsHundredForEqualTextsAndZeroWithoutAMatch) {
  for (const char* name : {"chrf", "chrf++"}) {
    const auto chrf = metric(name, BleuTokenizer::kNone);
    const auto score = [&](const char* a, const char* b) { return chrf->score(chrf->counts(a, b)); };
    EXPECT_NEAR(score("a b c", "a b c"), 100.0, 1e-11);
    EXPECT_EQ(score("x", "a"), 0.0);
    EXPECT_EQ(score("", "a"), 0.0);
    EXPECT_EQ(score("", ""), 0.0);
  }
}

TEST(Metrics, RefuseOtherNamesAndTextsThatDoNotPairUp) {
  EXPECT_THAT(message_of<Error>([] { metric("chrF", BleuTokenizer::kZh); }), HasSubstr("bleu, chrf or chrf++"));
  EXPECT_THAT(message_of<Error>([] { counts_of("chrf", {"a"}); }), HasSubstr("found 1 for 4"));
}

TEST(Bootstrap, DrawsWhatNumPyDraws) {
  Pcg64 random(12345);
  for (const uint32_t expected : {699u, 227u, 788u, 316u, 204u, 797u, 642u, 676u}) {
    EXPECT_EQ(random.below(1000), expected);
  }
}

TEST(Bootstrap, FindsTheIntervalsOfSacrebleu) {
  const Interval bleu = confidence(*metric("bleu", BleuTokenizer::k13a), counts_of("bleu", kHypotheses), {});
  EXPECT_NEAR(bleu.mean, 23.29785786866115, 1e-11);
  EXPECT_NEAR(bleu.half_width, 19.31667183721069, 1e-11);
  const Interval chrf = confidence(*metric("chrf", BleuTokenizer::k13a), counts_of("chrf", kHypotheses), {});
  EXPECT_EQ(static_cast<float>(chrf.mean), 59.368942f);
  EXPECT_EQ(static_cast<float>(chrf.half_width), 18.250809f);
}

TEST(Bootstrap, ComparesAsSacrebleuDoes) {
  const auto compared = [](const char* name) {
    return compare(*metric(name, BleuTokenizer::k13a), counts_of(name, kOthers), counts_of(name, kHypotheses), {});
  };
  EXPECT_DOUBLE_EQ(compared("chrf").p_value, 0.27472527472527475);
  EXPECT_DOUBLE_EQ(compared("bleu").p_value, 0.2627372627372627);
  EXPECT_NEAR(compared("bleu").baseline.mean, 33.55193742172247, 1e-11);
  EXPECT_NEAR(compared("bleu").system.half_width, 19.31667183721069, 1e-11);
}

TEST(Bootstrap, RefusesWhatCannotBeCompared) {
  const SentenceCounts counts = counts_of("bleu", kHypotheses);
  // As sacreBLEU has it: no difference is nothing that chance could have made.
  EXPECT_DOUBLE_EQ(compare(*metric("bleu", BleuTokenizer::k13a), counts, counts, {}).p_value, 1.0 / 1001.0);
  EXPECT_THAT(message_of<Error>([&] { compare(*metric("bleu", BleuTokenizer::k13a), counts, {counts[0]}, {}); }),
              HasSubstr("expected 4"));
  EXPECT_THAT(message_of<Error>([&] { confidence(*metric("bleu", BleuTokenizer::k13a), {}, {}); }),
              HasSubstr("found 0"));
}

}  // namespace
}  // namespace strobe::nmt
