#include "nmt/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::string> flat(const Corpus& corpus) {
  std::vector<std::string> sides;
  for (const SentencePair& pair : corpus.pairs) sides.insert(sides.end(), {pair.source, pair.target});
  return sides;
}

std::string error_of(const std::filesystem::path& file) {
  return message_of<Error>([&] { read_pairs(file); });
}

TEST(Corpus, ReadsTsvWithBomCrlfFurtherColumnsAndNoLastLineEnd) {
  TemporaryFolder folder;
  const auto file = folder.write("x.tsv", "\xEF\xBB\xBFHi.\t嗨。\tCC-BY\r\n  Run. \t跑。　\r\nStop.\t停。");
  const Corpus corpus = read_pairs(file);
  EXPECT_EQ(flat(corpus), (std::vector<std::string>{"Hi.", "嗨。", "Run.", "跑。", "Stop.", "停。"}));
  EXPECT_EQ(corpus.skipped.total(), 0);
  EXPECT_EQ(corpus.skipped.first, "");
}

TEST(Corpus, CountsWhatItSkipsAndNamesTheFirstPlace) {
  TemporaryFolder folder;
  const auto file =
      folder.write("x.tsv", "a\tb\nno tab\n\tempty\nempty\t \n\xFF\tbad\nbad\t\xC0\x80\nthird\t\xC0\nc\td\n\n");
  const Corpus corpus = read_pairs(file);
  EXPECT_EQ(flat(corpus), (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(corpus.skipped.no_tab, 2);  // and the empty line at the end
  EXPECT_EQ(corpus.skipped.empty_side, 2);
  EXPECT_EQ(corpus.skipped.invalid_utf8, 3);
  EXPECT_EQ(corpus.skipped.first, file.string() + ":2: no tab");
}

TEST(Corpus, BadBytesInFurtherColumnsDoNotMatter) {
  TemporaryFolder folder;
  EXPECT_EQ(read_pairs(folder.write("x.tsv", "a\tb\t\xFF\n")).pairs.size(), 1u);
}

TEST(Corpus, ReadsJsonPairs) {
  TemporaryFolder folder;
  const auto file = folder.write("x.json", R"([["Hi.", "\u55e8。"], ["a\nb", " c ", "more", {"x": [["y", "z"]]}],
      ["one"], ["", "empty"], "text", [1, "two"], {"a": ["b", "c"]}, [["n"], "m"], null, ["d", "e"]])");
  const Corpus corpus = read_pairs(file);
  EXPECT_EQ(flat(corpus), (std::vector<std::string>{"Hi.", "嗨。", "a b", "c", "d", "e"}));
  EXPECT_EQ(corpus.skipped.no_tab, 6);
  EXPECT_EQ(corpus.skipped.empty_side, 1);
  EXPECT_EQ(corpus.skipped.first, file.string() + ": pair 3: not a list of two strings");
}

TEST(Corpus, RefusesWhatIsNotAListOfPairs) {
  TemporaryFolder folder;
  EXPECT_THAT(error_of(folder.write("a.json", "{\"a\": 1}")), AllOf(HasSubstr("a.json"), HasSubstr("an object")));
  EXPECT_THAT(error_of(folder.write("b.json", "\"text\"")), AllOf(HasSubstr("b.json"), HasSubstr("a single value")));
  EXPECT_THAT(error_of(folder.write("c.json", "[[\"a\", \"b\"], [\"c\"")), HasSubstr("expected JSON"));
  EXPECT_THAT(error_of(folder.write("d.json", "[[\"a\", \"\xFF\"]]")), HasSubstr("error at byte"));
  EXPECT_THAT(error_of(folder.write("e.json", "")), HasSubstr("expected JSON"));
  EXPECT_THAT(error_of(folder.write("f.json", "[]")), HasSubstr("found an empty file"));
}

TEST(Corpus, RefusesMissingFilesFoldersAndFilesWithoutPairs) {
  TemporaryFolder folder;
  EXPECT_THAT(error_of(folder / "none.tsv"), AllOf(HasSubstr("none.tsv"), HasSubstr("No such file")));
  EXPECT_THAT(error_of(folder.path()), HasSubstr("found a directory"));
  EXPECT_THAT(error_of(folder.write("empty.tsv", "")), HasSubstr("found an empty file"));
  EXPECT_THAT(error_of(folder.write("bad.tsv", "x\ny\n")), HasSubstr("bad.tsv:1: no tab"));
}

TEST(Corpus, ReadsTwoParallelFiles) {
  TemporaryFolder folder;
  const auto source = folder.write("a.en", "one\r\ntwo\n\nfour\n"), target = folder.write("a.zh", "一\n二\n三\n四");
  const Corpus corpus = read_parallel(source, target);
  EXPECT_EQ(flat(corpus), (std::vector<std::string>{"one", "一", "two", "二", "four", "四"}));
  EXPECT_EQ(corpus.skipped.empty_side, 1);
  EXPECT_EQ(corpus.skipped.first, source.string() + ":3: an empty side");
}

TEST(Corpus, RefusesParallelFilesOfDifferentLengths) {
  TemporaryFolder folder;
  const auto longer = folder.write("a.en", "one\ntwo\nthree\n"), shorter = folder.write("a.zh", "一\n二\n");
  EXPECT_THAT(message_of<Error>([&] { read_parallel(longer, shorter); }), HasSubstr("a.zh\" ends after line 2"));
  EXPECT_THAT(message_of<Error>([&] { read_parallel(shorter, longer); }), HasSubstr("a.zh\" ends after line 2"));
  EXPECT_THAT(message_of<Error>([&] { read_parallel(longer, folder / "none"); }), HasSubstr("No such file"));
}

}  // namespace
}  // namespace strobe::nmt
