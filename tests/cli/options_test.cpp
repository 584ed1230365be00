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

}  // namespace
}  // namespace strobe::cli
