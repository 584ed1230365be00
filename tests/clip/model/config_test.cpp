#include "clip/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

TEST(Config, NamesEveryKnownTower) {
  for (const std::string& name : vision_names()) EXPECT_EQ(vision_config(name).name, name);
  for (const std::string& name : text_names()) EXPECT_EQ(text_config(name).name, name);
}

TEST(Config, CountsTokensAndHeads) {
  EXPECT_EQ(vision_config("ViT-B-16").num_tokens(), 197);
  EXPECT_EQ(vision_config("ViT-L-14-336").num_tokens(), 577);
  EXPECT_EQ(vision_config("ViT-H-14").num_heads(), 16);
  EXPECT_EQ(vision_config("RN50").num_tokens(), 50);
  EXPECT_EQ(vision_config("RN50").num_heads(), 32);
}

TEST(Config, RefusesAnUnknownNameWithTheKnownOnes) {
  try {
    text_config("bert-base");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("RBT3-chinese, RoBERTa-wwm-ext-base-chinese"));
    EXPECT_THAT(error.what(), testing::HasSubstr("found bert-base"));
  }
}

}  // namespace
}  // namespace strobe::clip
