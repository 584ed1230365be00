#include "train/file_hash.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "strobe/types.h"

namespace strobe::train {
namespace {

std::string hash_of(const std::string& content) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "strobe_file_hash";
  std::ofstream(file, std::ios::binary) << content;
  const std::string hash = file_hash(file);
  std::filesystem::remove(file);
  return hash;
}

TEST(FileHash, EqualsSha1sum) {  // FIPS 180-4's examples and what sha1sum prints
  EXPECT_EQ(hash_of(""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
  EXPECT_EQ(hash_of("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(hash_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
  EXPECT_EQ(hash_of(std::string(1000000, 'a')), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

TEST(FileHash, NamesTheMissingFile) {
  try {
    file_hash("/nowhere/at-all");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/nowhere/at-all"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace strobe::train
