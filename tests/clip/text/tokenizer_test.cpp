#include "clip/text/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

using Ids = std::vector<int64_t>;

/// A vocabulary of a file that holds `lines`.
class TokenizerTest : public ::testing::Test {
 protected:
  static std::filesystem::path write(const std::string& lines) {
    const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
    const std::filesystem::path file =
        std::filesystem::path(::testing::TempDir()) / (std::string(test->name()) + ".txt");
    std::ofstream(file, std::ios::binary) << lines;
    return file;
  }
  static BertTokenizer with(const std::string& pieces) {
    return BertTokenizer(write("[PAD]\n[UNK]\n[CLS]\n[SEP]\n" + pieces));  // pieces from 4
  }
};

TEST_F(TokenizerTest, TakesTheLongestPieceAndContinues) {
  const BertTokenizer tokenizer = with("a\nab\n##c\n##cd\nb\n##b");
  EXPECT_EQ(tokenizer.encode("abcd"), (Ids{5, 7}));
  EXPECT_EQ(tokenizer.encode("abcc"), (Ids{5, 6, 6}));
  EXPECT_EQ(tokenizer.encode("AB b"), (Ids{5, 8}));
}

TEST_F(TokenizerTest, AWordWithAPartThatIsNoPieceIsUnknownAsAWhole) {
  const BertTokenizer tokenizer = with("a\n##b\nx");
  EXPECT_EQ(tokenizer.encode("abz a x"), (Ids{1, 4, 6}));
}

TEST_F(TokenizerTest, AWordOfMoreThan200CodePointsIsUnknown) {
  const BertTokenizer tokenizer = with("é\ne\n##e");
  EXPECT_EQ(tokenizer.encode(std::string(200, 'e')).size(), 200U);
  EXPECT_EQ(tokenizer.encode(std::string(201, 'e')), Ids{1});
  std::string accented;
  for (int i = 0; i < 200; ++i) accented += "é";  // 400 bytes, 200 code points without their accents
  EXPECT_EQ(tokenizer.encode(accented).size(), 200U);
}

TEST_F(TokenizerTest, NamesOfSpecialTokensAreOrdinaryText) {
  const BertTokenizer tokenizer = with("[\n]\ncls");
  EXPECT_EQ(tokenizer.encode("[CLS]"), (Ids{4, 6, 5}));
}

TEST_F(TokenizerTest, IdeographsAndPunctuationAreWordsOfTheirOwn) {
  const BertTokenizer tokenizer = with("中\n国\n!\na\n##a\n豈");
  EXPECT_EQ(tokenizer.encode("a中国!aa"), (Ids{7, 4, 5, 6, 7, 8}));
  EXPECT_EQ(tokenizer.encode("\uf900"), Ids{9});  // a compatibility ideograph decomposes
}

TEST_F(TokenizerTest, DropsControlsAndSplitsAtEverySpace) {
  const BertTokenizer tokenizer = with("a\n##b\nb");
  EXPECT_EQ(tokenizer.encode(std::string("a\0b", 3)), (Ids{4, 5}));
  EXPECT_EQ(tokenizer.encode("a\u200bb"), (Ids{4, 5}));
  EXPECT_EQ(tokenizer.encode("a\ufffdb"), (Ids{4, 5}));
  EXPECT_EQ(tokenizer.encode("a\u2028b"), (Ids{4, 6}));
  EXPECT_EQ(tokenizer.encode("a\u3000b"), (Ids{4, 6}));
}

TEST_F(TokenizerTest, IdsAreLineNumbersThatAUnicodeLineSeparatorDoesNotShift) {
  const BertTokenizer tokenizer = with("\u2028\n##\u2028\na\r\nb");
  EXPECT_EQ(tokenizer.encode("a b"), (Ids{6, 7}));
  EXPECT_EQ(tokenizer.vocabulary_size(), 8);
}

TEST_F(TokenizerTest, APieceThatStandsTwiceHasTheLaterId) { EXPECT_EQ(with("a\nb\na").encode("a"), Ids{6}); }

TEST_F(TokenizerTest, TokenizeFramesCutsAndPads) {
  const BertTokenizer tokenizer = with("a\nb\nc");
  const at::Tensor tokens = tokenizer.tokenize({"a", "a b c", ""}, 4);
  ASSERT_EQ(tokens.sizes(), (std::vector<int64_t>{3, 4}));
  const Ids all(tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + tokens.numel());
  EXPECT_EQ(all, (Ids{2, 4, 3, 0, 2, 4, 5, 3, 2, 3, 0, 0}));
  EXPECT_EQ(tokenizer.tokenize({}, 4).size(0), 0);
}

TEST_F(TokenizerTest, RefusesWhatItCannotUse) {
  const auto message = [](auto action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const BertTokenizer tokenizer = with("a");
  EXPECT_NE(message([&] { tokenizer.tokenize({"a"}, 1); }).find("expected at least 2"), std::string::npos);
  EXPECT_NE(message([&] { tokenizer.tokenize({"a", "a\xff"}, 8); }).find("position 1"), std::string::npos);
  EXPECT_NE(message([&] { normalize_caption("\xe4\xb8"); }).find("UTF-8"), std::string::npos);
  EXPECT_NE(message([] { BertTokenizer("/nowhere/vocab.txt"); }).find("/nowhere/vocab.txt"), std::string::npos);
  EXPECT_NE(message([] { BertTokenizer(write("[PAD]\n[UNK]\n[SEP]\n")); }).find("[CLS]"), std::string::npos);
}

TEST_F(TokenizerTest, CaptionsAreLowerCaseWithStraightQuotes) {
  EXPECT_EQ(normalize_caption("“Ａ” İΣ ΑΣΑ"), "\"ａ\" i\u0307ς ασα");
  EXPECT_EQ(normalize_caption("‘É’"), "‘é’");
}

TEST_F(TokenizerTest, ThreadsShareOne) {
  const BertTokenizer tokenizer = with("a\n##b\n中\ne");
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) count += tokenizer.encode("ab中É") != Ids{4, 5, 6, 7};
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace strobe::clip
