#include "train/zip_archive.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>

#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"

namespace strobe::train {
namespace {

using ::testing::HasSubstr;

std::string read_bytes(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string archive_bytes(const TemporaryFolder& folder) {
  Dict content;
  content["a"] = at::arange(5, at::kFloat);
  content["b"] = "text";
  save_checkpoint(folder / "c.pt", content);
  return read_bytes(folder / "c.pt");
}

std::string error_of(std::string_view bytes) {
  return message_of<CheckpointError>([&] { const ZipArchive archive(bytes); });
}

TEST(ZipArchive, FindsTheRecordsOfACheckpoint) {
  const TemporaryFolder folder;
  const std::string bytes = archive_bytes(folder);
  const ZipArchive archive(bytes);
  EXPECT_EQ(archive.record("byteorder"), "little");
  EXPECT_EQ(archive.record("data/0").size(), 5 * sizeof(float));
  EXPECT_FALSE(archive.contains("data/1"));
  EXPECT_THROW(archive.record("data/1"), CheckpointError);
}

TEST(ZipArchive, SaysWhatIsDamaged) {
  const TemporaryFolder folder;
  const std::string bytes = archive_bytes(folder);
  EXPECT_THAT(error_of(""), HasSubstr("expected a zip archive"));
  EXPECT_THAT(error_of(bytes.substr(0, bytes.size() - 1)), HasSubstr("truncated"));
  std::string damaged = bytes;
  damaged.replace(bytes.find("PK\1\2"), 4, "nope");
  EXPECT_THAT(error_of(damaged), HasSubstr("directory is damaged"));
  damaged = bytes;
  damaged.replace(bytes.find("PK\3\4"), 4, "nope");
  EXPECT_THAT(error_of(damaged), HasSubstr("is damaged"));
  damaged = bytes;
  damaged[bytes.find("PK\1\2") + 10] = 8;  // deflated
  EXPECT_EQ(error_of(damaged), "");
  EXPECT_THROW(ZipArchive(damaged).record("data.pkl"), CheckpointError);
}

TEST(ZipArchive, SurvivesAnyDamage) {
  const TemporaryFolder folder;
  const std::string bytes = archive_bytes(folder);
  std::mt19937 random(7);
  constexpr int kTrials = 1500;
  int refused = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::string damaged = bytes;
    for (int i = 0; i < 4; ++i) {
      // Half of it where the structure is: the tensors' bytes may be anything.
      const std::size_t tail = trial % 2 == 0 ? damaged.size() : std::min<std::size_t>(damaged.size(), 400);
      damaged[damaged.size() - 1 - random() % tail] = static_cast<char>(random());
    }
    std::ofstream(folder / "d.pt", std::ios::binary) << damaged;
    try {
      load_checkpoint(folder / "d.pt");
    } catch (const CheckpointError& error) {
      ASSERT_THAT(error.what(), HasSubstr("d.pt"));
      ++refused;
    }
  }
  EXPECT_GT(refused, kTrials / 4);
  EXPECT_LT(refused, kTrials);
}

TEST(MappedCheckpoint, WritingToATensorLeavesTheFile) {
  const TemporaryFolder folder;
  const std::string bytes = archive_bytes(folder);
  const Dict content = load_checkpoint(folder / "c.pt");
  content.at("a").as_tensor().fill_(-1);
  EXPECT_EQ(read_bytes(folder / "c.pt"), bytes);
}

TEST(MappedCheckpoint, TensorsOutliveTheFile) {
  const TemporaryFolder folder;
  archive_bytes(folder);
  const at::Tensor kept = load_checkpoint(folder / "c.pt").at("a").as_tensor();
  Dict other;
  other["a"] = at::arange(9, at::kDouble);
  save_checkpoint(folder / "c.pt", other);
  EXPECT_TRUE(at::equal(kept, at::arange(5, at::kFloat)));
  std::filesystem::remove(folder / "c.pt");
  EXPECT_TRUE(at::equal(kept, at::arange(5, at::kFloat)));
}

}  // namespace
}  // namespace strobe::train
