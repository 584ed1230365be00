#include "nmt/staged_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::HasSubstr;
using Names = std::set<std::string>;

void write(StagedFiles& files, const std::string& name, const std::string& bytes) {
  files.write(name, [&](std::ostream& stream) { stream << bytes; });
}

TEST(StagedFiles, NothingAppearsBeforeTheCommit) {
  TemporaryFolder folder;
  folder.write("a", "old");
  {
    StagedFiles files(folder.path());
    write(files, "a", "new");
    write(files, "b/c", "new");
    EXPECT_EQ(folder.read("a"), "old");
    EXPECT_FALSE(std::filesystem::exists(folder / "b"));
  }
  EXPECT_EQ(folder.names(), Names{"a"});
  EXPECT_EQ(folder.read("a"), "old");
}

TEST(StagedFiles, AfterTheCommitAllAreThereAndNothingElse) {
  TemporaryFolder folder;
  folder.write("a", "old");
  folder.write("other", "kept");
  {
    StagedFiles files(folder.path());
    write(files, "a", "new");
    write(files, "b/c", "newer");
    files.commit();
  }
  EXPECT_EQ(folder.names(), (Names{"a", "b", "b/c", "other"}));
  EXPECT_EQ(folder.read("a"), "new");
  EXPECT_EQ(folder.read("b/c"), "newer");
}

TEST(StagedFiles, ACommitThatFailsHalfWayChangesNothing) {
  TemporaryFolder folder;
  folder.write("a", "old");
  folder.write("d/keep", "");  // a folder where the third file should go
  const std::string message = message_of<Error>([&] {
    StagedFiles files(folder.path());
    write(files, "a", "new");
    write(files, "b/c", "new");
    write(files, "d", "new");
    files.commit();
  });
  EXPECT_THAT(message, HasSubstr("it is a folder"));
  EXPECT_EQ(folder.names(), (Names{"a", "d", "d/keep"}));
  EXPECT_EQ(folder.read("a"), "old");
}

TEST(StagedFiles, AFileInTheWayOfAFolderIsNamed) {
  TemporaryFolder folder;
  folder.write("b", "a file");
  const std::string message = message_of<Error>([&] {
    StagedFiles files(folder.path());
    write(files, "a", "new");
    write(files, "b/c", "new");
    files.commit();
  });
  EXPECT_THAT(message, HasSubstr("making the folder"));
  EXPECT_EQ(folder.names(), Names{"b"});
  EXPECT_NE(message_of<Error>([&] { StagedFiles files(folder / "b"); }), "");
}

TEST(StagedFiles, MakesTheFolderAndTakesItAwayAgain) {
  TemporaryFolder folder;
  {
    StagedFiles files(folder / "x/y");
    write(files, "a", "new");
  }
  EXPECT_EQ(folder.names(), Names{});
  {
    StagedFiles files(folder / "x/y");
    write(files, "a", "new");
    files.commit();
  }
  EXPECT_EQ(folder.names(), (Names{"x", "x/y", "x/y/a"}));
}

TEST(StagedFiles, AnExceptionFromTheContentLeavesNothing) {
  TemporaryFolder folder;
  const std::string message = message_of<std::runtime_error>([&] {
    StagedFiles files(folder / "x");
    write(files, "a", "new");
    files.write("b", [](std::ostream&) { throw std::runtime_error("content"); });
  });
  EXPECT_EQ(message, "content");
  EXPECT_EQ(folder.names(), Names{});
}

TEST(StagedFiles, AFullDeviceIsAnError) {
  TemporaryFolder folder;
  StagedFiles files(folder.path());
  const std::string message = message_of<Error>([&] {
    files.write("a", [](std::ostream& stream) { stream.setstate(std::ios::badbit); });  // what a failed write leaves
  });
  EXPECT_THAT(message, HasSubstr("writing"));
}

TEST(StagedFiles, SaysEarlyWhereItCannotWrite) {
  TemporaryFolder folder;
  folder.write("file", "");
  StagedFiles::require_writable(folder / "not/yet/there");
  EXPECT_THAT(message_of<Error>([&] { StagedFiles::require_writable(folder / "file/x"); }), HasSubstr("not a folder"));
  EXPECT_NE(message_of<Error>([] { StagedFiles::require_writable("/proc/strobe"); }), "");
}

}  // namespace
}  // namespace strobe::nmt
