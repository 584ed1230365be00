#include "clip/text/installed_package.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <optional>
#include <string>

#include "clip/text/tokenizer.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

class InstalledPackage : public ::testing::Test {
 protected:
  InstalledPackage() {
    if (const char* value = getenv("VIRTUAL_ENV")) before_ = value;
  }
  ~InstalledPackage() override {
    if (before_) {
      setenv("VIRTUAL_ENV", before_->c_str(), 1);
    } else {
      unsetenv("VIRTUAL_ENV");
    }
  }

 private:
  std::optional<std::string> before_;
};

TEST_F(InstalledPackage, TheActiveEnvironmentComesFirst) {
  const fs::path environment = fs::path(::testing::TempDir()) / "environment";
  const fs::path package = environment / "lib/python3.99/site-packages/cn_clip/clip";
  fs::create_directories(package);
  std::ofstream(package / "vocab.txt") << "[PAD]\n";
  setenv("VIRTUAL_ENV", environment.c_str(), 1);
  EXPECT_EQ(default_vocabulary(), package / "vocab.txt");
  fs::remove_all(environment);
}

TEST_F(InstalledPackage, ElseTheCheckoutsEnvironment) {
  setenv("VIRTUAL_ENV", "/nowhere", 1);
  const BertTokenizer tokenizer(default_vocabulary());
  EXPECT_EQ(tokenizer.vocabulary_size(), 21128);
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.unknown_id(), 100);
  EXPECT_EQ(tokenizer.start_id(), 101);
  EXPECT_EQ(tokenizer.end_id(), 102);
  EXPECT_EQ(default_templates().filename(), "cvinw_zeroshot_templates.py");
}

}  // namespace
}  // namespace strobe::clip
