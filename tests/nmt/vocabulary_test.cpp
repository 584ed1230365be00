// SentencePiece's own behaviour is checked against its programs in parity_test.py.
#include "nmt/vocabulary.h"

#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::string> sentences() {
  std::vector<std::string> result;
  for (int i = 0; i < 200; ++i) {
    result.push_back("the price of item " + std::to_string(i * 7919) + " is " + std::to_string(i * 104729) + " yuan.");
    result.push_back("第" + std::to_string(i * 7919) + "件商品的价格（含税）是" + std::to_string(i) + "元。");
  }
  return result;
}

Vocabulary trained(const VocabularyOptions& options) {
  const std::vector<std::string> text = sentences();
  return Vocabulary::train({text.begin(), text.end()}, options);
}

TEST(Vocabulary, HasTheSpecialPiecesInTheirPlaces) {
  for (const char* type : {"bpe", "unigram"}) {
    const Vocabulary vocabulary = trained({150, type, 1.0, "identity"});
    EXPECT_EQ(vocabulary.size(), 150);
    EXPECT_EQ(vocabulary.piece(kPadId), "<pad>");
    EXPECT_EQ(vocabulary.piece(kUnkId), "<unk>");
    EXPECT_EQ(vocabulary.piece(kBosId), "<s>");
    EXPECT_EQ(vocabulary.piece(kEosId), "</s>");
  }
}

TEST(Vocabulary, DecodesWhatItEncodesWithoutPadBosAndEos) {
  const Vocabulary vocabulary = trained({150, "bpe", 1.0, "identity"});
  const std::string text = "第12件商品的价格（含税）是3元。";
  std::vector<int64_t> ids = vocabulary.encode(text);
  EXPECT_EQ(vocabulary.decode(ids), text);
  ids.insert(ids.begin(), {kBosId});
  ids.insert(ids.end(), {kEosId, kPadId, kPadId});
  EXPECT_EQ(vocabulary.decode(ids), text);
  EXPECT_EQ(vocabulary.decode({}), "");
  EXPECT_TRUE(vocabulary.encode("").empty());
}

TEST(Vocabulary, IdentityKeepsThePunctuationThatNfkcRewrites) {
  const std::string text = "（含税）";
  const Vocabulary identity = trained({150, "bpe", 1.0, "identity"}), nfkc = trained({150, "bpe", 1.0, "nmt_nfkc"});
  EXPECT_EQ(identity.decode(identity.encode(text)), text);
  EXPECT_EQ(nfkc.decode(nfkc.encode(text)), "(含税)");
}

TEST(Vocabulary, WordsAreWhatStandsBetweenSpaces) {
  const std::string longest(5000, 'w');
  const Vocabulary vocabulary =
      Vocabulary::train({"Ａ ｂ &quot; 中文 a@@ .", "中文 a@@\ta@@ 中文 " + longest + " （ a@@ 中文", "once"},
                        {10, "word", 1.0, "identity"});
  EXPECT_EQ(vocabulary.size(), 10);
  const std::string text = "Ａ ｂ &quot; 中文 a@@ .";
  EXPECT_EQ(vocabulary.encode(text).size(), 6u);
  EXPECT_EQ(vocabulary.piece(4), "\u2581a@@");  // the most frequent first
  EXPECT_EQ(vocabulary.piece(5), "\u2581中文");
  EXPECT_EQ(vocabulary.encode("a@@ 中文"), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(vocabulary.encode(" \ta@@\t \t中文  "), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(vocabulary.decode({kBosId, 4, 5, kEosId, kPadId}), "a@@ 中文");
  EXPECT_TRUE(vocabulary.encode(" \t ").empty());
  EXPECT_EQ(vocabulary.decode({}), "");
}

TEST(Vocabulary, EveryUnknownWordIsOneUnknown) {
  const Vocabulary vocabulary = Vocabulary::train({"a b a b", "a \u2581 b"}, {100, "word", 1.0, "identity"});
  const std::vector<int64_t> ids = vocabulary.encode("a new words b <s> \u2581 A </s>");
  EXPECT_EQ(ids, (std::vector<int64_t>{ids[0], kUnkId, kUnkId, ids[3], kUnkId, kUnkId, kUnkId, kUnkId}));
  EXPECT_EQ(vocabulary.decode(ids), "a ⁇ ⁇ b ⁇ ⁇ ⁇ ⁇");
  const Vocabulary again = Vocabulary::from_bytes(vocabulary.bytes(), "a test");
  EXPECT_EQ(again.encode("a new words b <s> \u2581 A </s>"), ids);
}

TEST(Vocabulary, SaysHowAnotherDiffers) {
  const Vocabulary some = trained({150, "bpe", 1.0, "identity"});
  EXPECT_EQ(some.difference(Vocabulary::from_bytes(some.bytes(), "a test")), "");
  EXPECT_EQ(some.difference(trained({140, "bpe", 1.0, "identity"})), "150 pieces, not 140");
  EXPECT_THAT(some.difference(trained({150, "unigram", 1.0, "identity"})),
              AllOf(HasSubstr("piece "), HasSubstr("is \""), HasSubstr("\", not \"")));
  const std::vector<std::string> ascii = {"abc abd", "bcd abc"};
  const auto of = [&](const char* normalization) {
    return Vocabulary::train({ascii.begin(), ascii.end()}, {12, "bpe", 1.0, normalization});
  };
  EXPECT_THAT(of("identity").difference(of("nmt_nfkc")), HasSubstr("the same pieces, but another normalisation"));
}

TEST(Vocabulary, BytesMakeTheSameVocabularyAgain) {
  const Vocabulary vocabulary = trained({150, "unigram", 1.0, "identity"});
  const Vocabulary again = Vocabulary::from_bytes(vocabulary.bytes(), "a test");
  for (const std::string& text : sentences()) EXPECT_EQ(again.encode(text), vocabulary.encode(text));
  TemporaryFolder folder;
  EXPECT_EQ(Vocabulary::load(folder.write("x.model", vocabulary.bytes())).bytes(), vocabulary.bytes());
}

TEST(Vocabulary, TrainingTwiceGivesTheSameBytes) {
  for (const char* type : {"bpe", "unigram"}) {
    EXPECT_EQ(trained({150, type, 1.0, "identity"}).bytes(), trained({150, type, 1.0, "identity"}).bytes());
  }
}

TEST(Vocabulary, FewerPiecesComeOutWhereTheTextHoldsNoMore) {
  const Vocabulary vocabulary = Vocabulary::train({"aa", "ab", "ba"}, {32000, "bpe", 1.0, "identity"});
  EXPECT_GT(vocabulary.size(), 4);
  EXPECT_LT(vocabulary.size(), 32);
}

TEST(Vocabulary, RefusesOptionsWithTheirNames) {
  EXPECT_THAT(message_of<Error>([] { trained({150, "char", 1.0, "identity"}); }), HasSubstr("type: expected \"bpe\""));
  for (const VocabularyOptions& options :
       {VocabularyOptions{150, "word", 0.9995, "identity"}, {150, "word", 1.0, "nmt_nfkc"}}) {
    EXPECT_THAT(message_of<Error>([&] { trained(options); }), HasSubstr("takes text as it is"));
  }
  EXPECT_THAT(message_of<Error>([] { trained({4, "bpe", 1.0, "identity"}); }), HasSubstr("size: expected"));
  EXPECT_THAT(message_of<Error>([] { trained({150, "bpe", 1.5, "identity"}); }), HasSubstr("character_coverage"));
  EXPECT_THAT(message_of<Error>([] { trained({150, "bpe", 1.0, "none such"}); }), HasSubstr("none such"));
  EXPECT_THAT(message_of<Error>([] { trained({20, "bpe", 1.0, "identity"}); }), HasSubstr("20 pieces of type bpe"));
  EXPECT_NE(message_of<Error>([] { Vocabulary::train({}, {}); }), "");
}

TEST(Vocabulary, RefusesForeignAndTruncatedModels) {
  const std::string bytes = trained({150, "bpe", 1.0, "identity"}).bytes();
  for (std::size_t size = 0; size < bytes.size(); size += size % 7 + 1) {  // between pieces and within them
    const std::string cut = bytes.substr(0, size);
    EXPECT_THAT(message_of<Error>([&] { Vocabulary::from_bytes(cut, "cut.model"); }), HasSubstr("cut.model")) << size;
  }
  std::mt19937_64 engine(7);
  for (int i = 0; i < 200; ++i) {  // damaged: refused or loaded, no crash
    std::string damaged = bytes;
    damaged[engine() % bytes.size()] = static_cast<char>(engine());
    message_of<Error>([&] { Vocabulary::from_bytes(damaged, "damaged.model").encode("the price of item 5"); });
  }
  EXPECT_NE(message_of<Error>([] { Vocabulary::from_bytes("not a model", "x"); }), "");
  TemporaryFolder folder;
  EXPECT_THAT(message_of<Error>([&] { Vocabulary::load(folder / "none.model"); }), HasSubstr("No such file"));
  EXPECT_THAT(message_of<Error>([&] { Vocabulary::load(folder.path()); }), HasSubstr("a directory"));
}

TEST(Vocabulary, RefusesIdsOutOfRange) {
  const Vocabulary vocabulary = trained({150, "bpe", 1.0, "identity"});
  for (const int64_t id : {int64_t{-1}, int64_t{150}, INT64_MAX}) {
    EXPECT_THAT(message_of<Error>([&] { vocabulary.decode({5, id}); }), HasSubstr("expected 0 to 149"));
    EXPECT_THAT(message_of<Error>([&] { vocabulary.piece(id); }), HasSubstr("expected 0 to 149"));
  }
}

TEST(Vocabulary, BytesThatAreNotUtf8AreEncodedAsUnknown) {
  const Vocabulary vocabulary = trained({150, "bpe", 1.0, "identity"});
  EXPECT_EQ(vocabulary.encode("\xFF\xFE").back(), kUnkId);
}

// Both libraries bring a copy of protobuf; one process must be able to use both in either order.
TEST(Vocabulary, LivesInOneProcessWithBackPropagation) {
  const auto gradient_is_twice_x = [] {
    at::Tensor x = at::randn({64, 64}).set_requires_grad(true);
    x.mul(x).sum().backward();
    return x.grad().equal(x.detach().mul(2));
  };
  EXPECT_TRUE(gradient_is_twice_x());
  const Vocabulary vocabulary = trained({150, "bpe", 1.0, "identity"});
  EXPECT_TRUE(gradient_is_twice_x());
  EXPECT_EQ(vocabulary.decode(vocabulary.encode("the price of item 5")), "the price of item 5");
  EXPECT_TRUE(gradient_is_twice_x());
}

}  // namespace
}  // namespace strobe::nmt
