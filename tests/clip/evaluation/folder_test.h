// A test that has a folder.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "tests/temporary_folder.h"

namespace strobe::clip {

class FolderTest : public ::testing::Test {
 protected:
  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    return folder_.write(name, bytes);
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace strobe::clip
