#include "cli/options.h"

#include <gtest/gtest.h>

namespace strobe::cli {
namespace {

TEST(Nearest, FindsTheClosestName) {
  const std::vector<std::string> types = {"dotscale", "flash_attn", "imp_flash_attn"};
  EXPECT_EQ(nearest("flash_atn", types), "flash_attn");
  EXPECT_EQ(nearest("dotscal", types), "dotscale");
  EXPECT_EQ(nearest("imp_flash", types), "imp_flash_attn");
}

TEST(Nearest, IsSilentWhereNothingIsNear) {
  EXPECT_EQ(nearest("x", {"dotscale", "flash_attn"}), "");
  EXPECT_EQ(nearest("--model", {}), "");
}

TEST(OneOf, TakesWhatIsAllowedAndNamesTheRest) {
  const CLI::Validator validator = one_of({"dotscale", "flash_attn"});
  std::string good = "dotscale", bad = "dotscael";
  EXPECT_EQ(validator(good), "");
  EXPECT_EQ(validator(bad), "expected {dotscale|flash_attn}, found \"dotscael\"; did you mean \"dotscale\"?");
}

TEST(CommandLine, RepeatsWhatWasGivenQuotedForAShell) {
  CLI::App app("a program", "strobe");
  CLI::App* train = app.add_subcommand("train");
  std::vector<std::string> texts;
  int epochs = 1;
  bool quick = false;
  train->add_option("--text", texts)->expected(1)->take_all();
  train->add_option("--epochs", epochs);
  train->add_option("--seed", epochs);
  train->add_flag("--quick", quick);
  std::vector<std::string> words = {"it's a test", "--text", "--quick", "3", "--epochs", "one", "--text", "train"};
  app.parse(words);
  EXPECT_EQ(command_line(*train), "strobe train --text one 'it'\\''s a test' --epochs 3 --quick");
}

}  // namespace
}  // namespace strobe::cli
