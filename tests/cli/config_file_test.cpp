#include "cli/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "strobe/types.h"
#include "tests/message_of.h"

namespace strobe::cli {
namespace {

using ::testing::HasSubstr;

/// A program with one option of each kind.
struct Program {
  CLI::App app{"a program", "program"};
  std::string type = "bpe", out = "run";
  int layers = 6;
  double lr = 1e-3;
  bool deterministic = false;
  std::optional<int> warmup;
  std::vector<std::string> inputs;
  std::optional<ConfigFile> config;

  Program() {
    app.add_option("--type_of,--type-of", type, "kind")->check(one_of({"bpe", "word"}))->capture_default_str();
    app.add_option("--out", out, "folder")->capture_default_str();
    app.add_option("--layers", layers, "many")->check(CLI::PositiveNumber)->capture_default_str()->group("Model");
    app.add_option("--lr", lr, "rate")->capture_default_str();
    app.add_flag("--deterministic", deterministic, "same bits");
    app.add_option("--warmup", warmup, "updates");
    app.add_option("--inputs", inputs, "files");
    config.emplace(app, std::vector<Preset>{{"small", "few layers", "layers = 2\nlr = 0.5\nwarmup = 7\n"}});
  }
  void parse(const std::string& line) {
    app.parse(line);
    config->apply();
  }
};

std::string write(const std::string& content) {
  const std::string file = ::testing::TempDir() + "strobe_config_file_test.toml";
  std::ofstream(file) << content;
  return file;
}

std::string error_of(const std::string& line) {
  Program program;
  return message_of<Error>([&] { program.parse(line); });
}

TEST(ConfigFile, FlagsWinOverTheFileWinsOverThePresetWinsOverDefaults) {
  Program program;
  program.parse("--layers 3 --preset small --config " + write("layers = 4\nlr = 2e-3\ndeterministic = true\n"));
  EXPECT_EQ(program.layers, 3);
  EXPECT_EQ(program.lr, 2e-3);
  EXPECT_EQ(program.warmup, 7);
  EXPECT_TRUE(program.deterministic);
  EXPECT_EQ(program.type, "bpe");
}

TEST(ConfigFile, TakesUnderscoresForDashesAndLists) {
  Program program;
  program.parse("--config " + write("type_of = 'word'\ninputs = ['a', 'b c']\n"));
  EXPECT_EQ(program.type, "word");
  EXPECT_EQ(program.inputs, (std::vector<std::string>{"a", "b c"}));
}

TEST(ConfigFile, NamesUnknownKeysWithTheNearest) {
  EXPECT_THAT(error_of("--config " + write("layer = 4\n")),
              HasSubstr("unknown key \"layer\"; did you mean \"layers\"?"));
  EXPECT_THAT(error_of("--config " + write("config = 'x'\n")), HasSubstr("unknown key \"config\""));
}

TEST(ConfigFile, NamesWhatIsWrongWithAValueOrALine) {
  EXPECT_THAT(error_of("--config " + write("layers = -1\n")), HasSubstr("--layers"));
  EXPECT_THAT(error_of("--config " + write("layers = 'many'\n")), HasSubstr("--layers"));
  EXPECT_THAT(error_of("--config " + write("type-of = 'wordd'\n")), HasSubstr("did you mean \"word\"?"));
  EXPECT_THAT(error_of("--config " + write("lr = 1\nlayers 4\n")), HasSubstr("line 2"));
  EXPECT_THAT(error_of("--config " + write("[model]\nlayers = 4\n")), HasSubstr("unknown key \"model\""));
  EXPECT_THAT(error_of("--config /nowhere/x.toml"), HasSubstr("/nowhere/x.toml"));
}

TEST(ConfigFile, ADumpGivesTheSameProgramAgain) {
  Program first;
  first.parse("--preset small --deterministic --type-of word --inputs a \"b # c\" --out 'quo\"ted'");
  const std::string dump = first.config->dump();
  Program second;
  second.parse("--config " + write(dump));
  EXPECT_EQ(second.layers, 2);
  EXPECT_EQ(second.lr, 0.5);
  EXPECT_EQ(second.warmup, 7);
  EXPECT_TRUE(second.deterministic);
  EXPECT_EQ(second.type, "word");
  EXPECT_EQ(second.inputs, (std::vector<std::string>{"a", "b # c"}));
  EXPECT_EQ(second.out, first.out);
  EXPECT_EQ(second.config->dump(), dump);
}

}  // namespace
}  // namespace strobe::cli
