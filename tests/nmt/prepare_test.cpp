#include "nmt/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "nmt/dataset.h"
#include "nmt/split.h"
#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using Names = std::set<std::string>;

const Names kPrepared{"json",      "json/train.json",        "json/dev.json",          "json/test.json",
                      "tokenizer", "tokenizer/source.model", "tokenizer/target.model", "prepare.json"};

std::string tsv(int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i) {
    text += "number " + std::to_string(i * 7919) + "\t数字" + std::to_string(i * 7919) + "\tsomebody\n";
  }
  return text;
}

PrepareOptions small(const std::filesystem::path& data) {
  PrepareOptions options;
  options.data = data;
  options.source_vocabulary.size = options.target_vocabulary.size = 60;
  options.target_vocabulary.character_coverage = 1.0;
  return options;
}

struct Outcome {
  PrepareSummary summary;
  std::vector<std::string> log;
};
Outcome run(const PrepareOptions& options) {
  Outcome outcome;
  outcome.summary = prepare(options, [&](const std::string& line) { outcome.log.push_back(line); });
  return outcome;
}
std::string error_of(const PrepareOptions& options) {
  return message_of<Error>([&] { run(options); });
}

TEST(Prepare, SplitsOneFileAndWritesAFolderThatLoads) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.input = folder.write("all.tsv", tsv(0, 400) + "no tab\n");
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.summary.train, 320);
  EXPECT_EQ(outcome.summary.dev, 40);
  EXPECT_EQ(outcome.summary.test, 40);
  EXPECT_EQ(outcome.summary.skipped.no_tab, 1);
  EXPECT_EQ(outcome.summary.source_pieces, 60);
  EXPECT_THAT(outcome.log, Contains("train 320 pairs, dev 40, test 40"));
  EXPECT_THAT(outcome.log, Contains(HasSubstr("a tenth of the pairs each: there are fewer than 10 x 1000")));
  EXPECT_THAT(outcome.log, Contains(AllOf(HasSubstr("skipped 1 lines"), HasSubstr("all.tsv:401: no tab"))));

  const Vocabularies vocabularies = load_vocabularies(options.data);
  const Dataset train = load_dataset(options.data, Part::kTrain, vocabularies);
  const Dataset dev = load_dataset(options.data, Part::kDev, vocabularies);
  EXPECT_EQ(train.texts.size(), 320u);
  EXPECT_EQ(dev.texts.size(), 40u);
  EXPECT_EQ(count_shared(dev.texts, train.texts), 0);
  for (std::size_t i = 0; i < train.texts.size(); ++i) {
    const EncodedPair& pair = train.pairs[i];
    EXPECT_EQ(pair.source.front(), kBosId);
    EXPECT_EQ(pair.source.back(), kEosId);
    EXPECT_EQ(vocabularies.source.decode(pair.source), train.texts[i].source);
    EXPECT_EQ(vocabularies.target.decode(pair.target), train.texts[i].target);
  }
  Names names = kPrepared, found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options.data)) {
    found.insert(std::filesystem::relative(entry.path(), options.data).string());
  }
  EXPECT_EQ(found, names);
}

TEST(Prepare, RecordsWhereTheFolderCameFrom) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.input = folder.write("all.tsv", tsv(0, 100));
  options.seed = 17;
  run(options);
  const auto record = nlohmann::json::parse(folder.read("data/prepare.json"));
  EXPECT_EQ(record["seed"], 17);
  EXPECT_EQ(record["pairs"]["train"], 80);
  EXPECT_EQ(record["inputs"][0]["file"], options.input.string());
  EXPECT_EQ(record["inputs"][0]["bytes"], std::filesystem::file_size(options.input));
  EXPECT_EQ(record["target_vocabulary"]["normalization"], "identity");

  const std::string before = record["inputs"][0]["sha1"];
  folder.write("all.tsv", tsv(0, 100) + "x\ty\n");
  run(options);
  EXPECT_NE(nlohmann::json::parse(folder.read("data/prepare.json"))["inputs"][0]["sha1"], before);
}

TEST(Prepare, TakesThreeFilesOfEitherFormAndWarnsOfSharedSentences) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.train = folder.write("train.tsv", tsv(0, 100));
  options.dev = folder.write("dev.json", R"([["number 0", "零"], ["new", "新"]])");
  options.test = folder.write("test.tsv", tsv(200, 10));
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.summary.dev, 2);
  EXPECT_THAT(outcome.log, Contains(HasSubstr("warning: 1 of the dev pairs share a sentence")));
  EXPECT_THAT(outcome.log, Not(Contains(HasSubstr("of the test pairs share"))));
}

TEST(Prepare, TakesTwoParallelFiles) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  std::string source, target;
  for (int i = 0; i < 100; ++i) {
    source += "number " + std::to_string(i * 7919) + "\n";
    target += "数字" + std::to_string(i * 7919) + "\n";
  }
  options.source = folder.write("a.en", source);
  options.target = folder.write("a.zh", target);
  EXPECT_EQ(run(options).summary.train, 80);
}

TEST(Prepare, FitsVocabulariesForAFolderOfFlashAttentionNmtAndLeavesItsFilesAlone) {
  TemporaryFolder folder;
  const std::string train = R"([["number 1", "数字1"],   ["number 2", "数字2"], ["number 34", "数字34", "x"]])";
  folder.write("data/json/train.json", train);
  folder.write("data/json/dev.json", R"([["number 5", "数字5"]])");
  folder.write("data/json/test.json", R"([["number 6", "数字6"]])");
  EXPECT_THAT(message_of<Error>([&] { load_vocabularies(folder / "data"); }), HasSubstr("strobe nmt prepare"));
  PrepareOptions options = small(folder / "data");
  const Outcome outcome = run(options);
  EXPECT_EQ(folder.read("data/json/train.json"), train);
  EXPECT_THAT(outcome.log, Contains(HasSubstr("warning: source vocabulary: 60 pieces asked for")));
  const Vocabularies vocabularies = load_vocabularies(options.data);
  EXPECT_EQ(load_dataset(options.data, Part::kTrain, vocabularies).pairs.size(), 3u);

  // Its own tokenizers serve as they are.
  std::filesystem::rename(folder / "data/tokenizer/source.model", folder / "data/tokenizer/eng.model");
  std::filesystem::rename(folder / "data/tokenizer/target.model", folder / "data/tokenizer/chn.model");
  EXPECT_EQ(load_vocabularies(options.data).target.bytes(), vocabularies.target.bytes());
}

TEST(Prepare, TheSameInputGivesTheSameFiles) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "a");
  options.input = folder.write("all.tsv", tsv(0, 200));
  run(options);
  options.data = folder / "b";
  run(options);
  for (const std::string name : {"json/train.json", "json/test.json", "tokenizer/target.model", "prepare.json"}) {
    EXPECT_EQ(folder.read("a/" + name), folder.read("b/" + name)) << name;
  }
}

TEST(Prepare, TheBuiltInCorpusIsSplitWithoutSharedSentences) {
  TemporaryFolder folder;
  PrepareOptions options = demo_options();
  options.data = folder / "data";
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.summary.dev, 1000);
  EXPECT_EQ(outcome.summary.test, 1000);
  EXPECT_THAT(outcome.log, Not(Contains(HasSubstr("a tenth"))));
  EXPECT_EQ(outcome.summary.source_pieces, 600);
  EXPECT_EQ(outcome.summary.target_pieces, 600);
  EXPECT_THAT(outcome.log, Not(Contains(HasSubstr("warning"))));
  const Vocabularies vocabularies = load_vocabularies(options.data);
  for (const EncodedPair& pair : load_dataset(options.data, Part::kTest, vocabularies).pairs) {
    EXPECT_THAT(pair.source, Not(Contains(kUnkId)));
    EXPECT_THAT(pair.target, Not(Contains(kUnkId)));
  }
}

TEST(Prepare, NothingIsWrittenWhereItFails) {
  TemporaryFolder folder;
  const auto good = folder.write("good.tsv", tsv(0, 100));
  const Names before = folder.names();
  PrepareOptions options = small(folder / "data");
  EXPECT_THAT(error_of(options), HasSubstr("expected input files"));
  options.train = options.dev = good;
  options.test = folder / "missing.tsv";  // after two that are there
  EXPECT_THAT(error_of(options), HasSubstr("missing.tsv"));
  options.test = good;
  options.target_vocabulary.size = 5;  // fewer than there are characters; the source's vocabulary is fitted by then
  EXPECT_THAT(error_of(options), HasSubstr("5 pieces"));
  EXPECT_EQ(folder.names(), before);
}

TEST(Prepare, AnEarlierFolderSurvivesAFailure) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.input = folder.write("all.tsv", tsv(0, 100));
  run(options);
  const std::string train = folder.read("data/json/train.json"), model = folder.read("data/tokenizer/source.model");
  std::filesystem::remove(folder / "data/prepare.json");
  std::filesystem::create_directory(folder / "data/prepare.json");  // the last file cannot be put in its place
  folder.write("all.tsv", tsv(500, 300));
  EXPECT_THAT(error_of(options), HasSubstr("it is a folder"));
  EXPECT_EQ(folder.read("data/json/train.json"), train);
  EXPECT_EQ(folder.read("data/tokenizer/source.model"), model);
}

TEST(Prepare, RefusesAFolderThatCannotBeWritten) {
  TemporaryFolder folder;
  PrepareOptions options = small("/proc/strobe-data");
  options.input = folder.write("all.tsv", tsv(0, 100));
  EXPECT_NE(error_of(options), "");
  options.data = options.input;
  EXPECT_THAT(error_of(options), HasSubstr("not a folder"));
}

TEST(Prepare, RefusesInputsThatContradictEachOther) {
  PrepareOptions options = small("data");
  options.train = "a";
  EXPECT_THAT(error_of(options), HasSubstr("train, dev and test together"));
  options = small("data");
  options.source = "a";
  EXPECT_THAT(error_of(options), HasSubstr("a source and a target file together"));
  options = small("data");
  options.input = "a";
  options.demo = true;
  EXPECT_THAT(error_of(options), HasSubstr("expected one of"));
  options = small("data");
  for (const double size : {0.0, -1.0, 2.5}) {
    options.test_size = size;
    EXPECT_THAT(error_of(options), HasSubstr("test_size: expected a number of pairs, or a share"));
  }
  options = small("data");
  options.lengths.max = 50;
  EXPECT_THAT(error_of(options), HasSubstr("the folder's own json/ stay as they are"));
  options = small("data");
  options.input = "a";
  options.lengths.max_ratio = 0.5;
  EXPECT_THAT(error_of(options), HasSubstr("max_ratio: expected 0 or at least 1"));
  options = small("data");
  options.joint_vocabulary = true;
  options.vocabularies_from = "b";
  EXPECT_THAT(error_of(options), HasSubstr("joint_vocabulary"));
}

TEST(Prepare, SplitsOffAsManyPairsAsAskedFor) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.input = folder.write("all.tsv", tsv(0, 400));
  options.dev_size = 0.05;
  options.test_size = 33;
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.summary.dev, 20);
  EXPECT_EQ(outcome.summary.test, 33);
  EXPECT_EQ(outcome.summary.train, 347);
  EXPECT_THAT(outcome.log, Not(Contains(HasSubstr("a tenth"))));
  options.test_size = 390;
  EXPECT_THAT(error_of(options), HasSubstr("dev (20) and test (390)"));
}

TEST(Prepare, OneVocabularyForBothSides) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.input = folder.write("all.tsv", tsv(0, 200));
  options.joint_vocabulary = true;
  const Outcome outcome = run(options);
  EXPECT_THAT(outcome.log, Contains(HasSubstr("fitting the joint vocabulary: 60 pieces, bpe")));
  EXPECT_EQ(folder.read("data/tokenizer/source.model"), folder.read("data/tokenizer/target.model"));
  EXPECT_EQ(nlohmann::json::parse(folder.read("data/prepare.json"))["joint_vocabulary"], true);
  const Vocabularies vocabularies = load_vocabularies(options.data);
  for (const EncodedPair& pair : load_dataset(options.data, Part::kTrain, vocabularies).pairs) {
    EXPECT_THAT(pair.source, Not(Contains(kUnkId)));
    EXPECT_THAT(pair.target, Not(Contains(kUnkId)));
  }
}

TEST(Prepare, TakesVocabulariesThatThereAre) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "first");
  options.input = folder.write("all.tsv", tsv(0, 200));
  run(options);
  options.input = folder.write("other.tsv", tsv(500, 100));
  options.data = folder / "second";
  options.vocabularies_from = folder / "first";
  const Outcome outcome = run(options);
  EXPECT_THAT(outcome.log, Contains(HasSubstr("taking the vocabularies of")));
  EXPECT_EQ(folder.read("first/tokenizer/source.model"), folder.read("second/tokenizer/source.model"));
  EXPECT_EQ(folder.read("first/tokenizer/target.model"), folder.read("second/tokenizer/target.model"));
  options.vocabularies_from = folder / "none.pt";
  EXPECT_THAT(error_of(options), HasSubstr("none.pt"));
}

TEST(Prepare, LeavesOutTrainingPairsByTheirLengthsAndCountsThem) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.source_vocabulary = options.target_vocabulary = {60, "word", 1.0, "identity"};
  const std::string good = "a b c\tx y\n", lines = good + good + "a\tx y\n" + "a b c d e f\tx y z\n" + "a b c d\tx\n" +
                                                   "a b c d e\tx y\n" + "b b\tx y z\n";
  options.train = folder.write("train.tsv", lines);
  options.dev = options.test = folder.write("dev.tsv", "a\tx\n");
  options.lengths = {2, 5, 2.0};
  const Outcome outcome = run(options);
  EXPECT_THAT(outcome.log, Contains("left out 4 of 7 pairs: 1 too long, 2 too short, 0 empty, 1 by their ratio"));
  EXPECT_EQ(outcome.summary.train, 3);
  EXPECT_EQ(outcome.summary.dev, 1);
  EXPECT_EQ(outcome.summary.left_out.total(), 4);
  EXPECT_EQ(folder.read("data/json/train.json"), "[[\"a b c\",\"x y\"],\n[\"a b c\",\"x y\"],\n[\"b b\",\"x y z\"]]\n");
  EXPECT_EQ(nlohmann::json::parse(folder.read("data/prepare.json"))["left_out"]["ratio"], 1);
  options.lengths = {7, 0, 0.0};
  EXPECT_THAT(error_of(options), HasSubstr("left out 7 of 7 pairs"));
}

TEST(Prepare, SaysWhatTheVocabulariesAreNotFittedOn) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.train = folder.write("train.tsv", tsv(0, 100) + std::string(kMostBytesToFitOn + 1, 'q') + "\t数字\n");
  options.dev = options.test = folder.write("dev.tsv", tsv(100, 5));
  EXPECT_THAT(run(options).log,
              Contains("warning: source vocabulary: not fitted on 1 sentences of more than 4192 bytes"));
  EXPECT_EQ(load_vocabularies(options.data).source.encode("q").back(), kUnkId);
  options.source_vocabulary = options.target_vocabulary = {500, "word", 1.0, "identity"};
  EXPECT_THAT(run(options).log, Not(Contains(HasSubstr("not fitted"))));
}

TEST(Prepare, SidesWithoutAPieceAreLeftOutOfTheTraining) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  // nmt_nfkc removes control characters.
  options.train = folder.write("train.tsv", tsv(0, 100) + "\x01\x02\t数字7919\n");
  options.dev = options.test = folder.write("dev.tsv", tsv(100, 5));
  EXPECT_EQ(run(options).summary.left_out.empty, 1);
}

TEST(Dataset, LeavesOutLongPairsAndCountsThem) {
  TemporaryFolder folder;
  PrepareOptions options = small(folder / "data");
  options.train = folder.write("train.tsv", tsv(0, 100) + "1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0\t1\n");
  options.dev = options.test = folder.write("dev.tsv", tsv(100, 5));
  run(options);
  const Vocabularies vocabularies = load_vocabularies(options.data);
  const auto load = [&](int64_t max) {
    return load_dataset(options.data, Part::kTrain, vocabularies, LengthLimits{.max = max});
  };
  const Dataset all = load_dataset(options.data, Part::kTrain, vocabularies);
  const auto longest = static_cast<int64_t>(all.pairs.back().source.size()) - 2;
  EXPECT_EQ(all.pairs.size(), 101u);
  EXPECT_EQ(all.left_out.total(), 0);
  EXPECT_EQ(load(longest).pairs.size(), 101u);
  const Dataset some = load(longest - 1);
  EXPECT_EQ(some.pairs.size(), 100u);
  EXPECT_EQ(some.left_out.too_long, 1);
  EXPECT_EQ(some.texts.size(), some.pairs.size());
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(some.texts[i].source, all.texts[i].source);
  EXPECT_THAT(message_of<Error>([&] { load(1); }), HasSubstr("left out 101 of 101 pairs: 101 too long"));
}

TEST(Dataset, SaysHowToMakeWhatIsMissing) {
  TemporaryFolder folder;
  EXPECT_THAT(message_of<Error>([&] { load_vocabularies(folder.path()); }), HasSubstr("strobe nmt prepare"));
  const Vocabulary any = Vocabulary::train({"abc", "bca"}, {32, "bpe", 1.0, "identity"});
  EXPECT_THAT(message_of<Error>([&] {
                load_dataset(folder.path(), Part::kDev, {any, any});
              }),
              AllOf(HasSubstr("dev.json"), HasSubstr("strobe nmt prepare")));
}

}  // namespace
}  // namespace strobe::nmt
