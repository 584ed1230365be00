// Golden values; parity_test.py holds the whole of it against the Python package.
#include "nmt/bleu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::HasSubstr;

TEST(Bleu, AgreesWithSacrebleuOnASentence) {
  const Bleu bleu = corpus_bleu({"他说“你好”。"}, {"他说“您好”。"}, BleuTokenizer::kZh);
  EXPECT_EQ(bleu.text(), "BLEU = 41.11 85.7/66.7/40.0/12.5 (BP = 1.000 ratio = 1.000 hyp_len = 7 ref_len = 7)");
  EXPECT_EQ(bleu.signature, "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0");
}

TEST(Bleu, IsHundredForEqualTextsAndZeroWithoutAMatch) {
  EXPECT_NEAR(corpus_bleu({"a b c d e"}, {"a b c d e"}, BleuTokenizer::k13a).score, 100.0, 1e-11);
  EXPECT_EQ(corpus_bleu({"x y z"}, {"a b c"}, BleuTokenizer::k13a).score, 0.0);
  EXPECT_EQ(corpus_bleu({""}, {"a b c"}, BleuTokenizer::k13a).score, 0.0);
  EXPECT_EQ(corpus_bleu({""}, {""}, BleuTokenizer::kZh).score, 0.0);
}

TEST(Bleu, TokenizesAsTheReferenceDoes) {
  EXPECT_EQ(tokenize("中国GDP增长3.5%。", BleuTokenizer::kZh), "中 国 GDP 增 长 3.5 % 。");
  EXPECT_EQ(tokenize("Mr. O'Neil paid $1,000.50 &amp; left-9-", BleuTokenizer::k13a),
            "Mr . O'Neil paid $ 1,000.50 & left-9 -");
  EXPECT_EQ(tokenize("a 中b", BleuTokenizer::kChar), "a 中 b");
  EXPECT_EQ(tokenize(" a  b\u3000c ", BleuTokenizer::kNone), "a b c");
}

TEST(Bleu, NamesItsTokenizers) {
  for (const char* name_of_one : {"zh", "13a", "char", "none"})
    EXPECT_EQ(name(bleu_tokenizer(name_of_one)), name_of_one);
  EXPECT_THAT(message_of<Error>([] { bleu_tokenizer("intl"); }), HasSubstr("zh, 13a, char or none, found \"intl\""));
}

TEST(Bleu, RefusesTextsThatDoNotPairUp) {
  EXPECT_THAT(message_of<Error>([] {
                corpus_bleu({"a"}, {"a", "b"}, BleuTokenizer::kZh);
              }),
              HasSubstr("found 1 for 2"));
  EXPECT_NE(message_of<Error>([] { corpus_bleu({}, {}, BleuTokenizer::kZh); }), "");
}

}  // namespace
}  // namespace strobe::nmt
