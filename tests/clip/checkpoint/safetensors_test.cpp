#include "clip/checkpoint/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::clip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using train::CheckpointError;
using train::Dict;

std::string file_of(const std::string& header, std::size_t data) {
  const uint64_t size = header.size();
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));
  return bytes + header + std::string(data, '\1');
}

std::string error_of(const TemporaryFolder& folder, const std::string& bytes) {
  std::ofstream(folder / "w.safetensors", std::ios::binary) << bytes;
  return message_of<CheckpointError>([&] { read_safetensors(folder / "w.safetensors"); });
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

TEST(Safetensors, ReadsWhatItWrites) {
  const TemporaryFolder folder;
  Dict tensors;
  tensors["z"] = at::arange(6, at::kFloat).reshape({2, 3}).t();
  tensors["a"] = at::arange(3, at::kHalf);
  tensors["none"] = at::zeros({0, 4});
  tensors["scalar"] = at::zeros({}, at::kLong);
  write_safetensors(folder / "w.safetensors", tensors, {{"format", "pt"}});
  const Dict read = read_safetensors(folder / "w.safetensors");
  ASSERT_EQ(read.size(), tensors.size());
  for (const auto& [name, value] : tensors) {
    EXPECT_TRUE(at::equal(read.at(name).as_tensor(), value.as_tensor())) << std::get<std::string>(name);
  }
  EXPECT_EQ(std::get<std::string>(read.begin()->first), "scalar");  // the widest first
}

TEST(Safetensors, RefusesDamagedHeadersByName) {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& header, std::size_t data) {
    return error_of(folder, file_of("{" + header + "}", data));
  };
  EXPECT_EQ(error(tensor("a", "F32", "[1]", "[0,4]"), 4), "");
  EXPECT_THAT(error(tensor("a", "F32", "[2]", "[0,4]"), 4),
              AllOf(HasSubstr("w.safetensors"), HasSubstr("tensor \"a\"")));
  EXPECT_THAT(error(tensor("a", "F32", "[1]", "[4,0]"), 4), HasSubstr("offsets"));
  EXPECT_THAT(error(tensor("a", "F32", "[1]", "[0,4]"), 2), HasSubstr("beyond the file's end"));
  EXPECT_THAT(error(tensor("a", "F32", "[1]", "[0,4]"), 8), HasSubstr("expected 4 bytes of tensors, found 8"));
  EXPECT_THAT(error(tensor("a", "F32", "[1]", "[4,8]"), 8), HasSubstr("hole"));
  EXPECT_THAT(error(tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[1]", "[0,4]"), 4),
              HasSubstr("tensor \"b\": it overlaps"));
  EXPECT_THAT(error(tensor("a", "F8_E4M3", "[1]", "[0,1]"), 1), HasSubstr("F8_E4M3"));
  EXPECT_THAT(error(tensor("a", "F32", "[-1]", "[0,4]"), 4), HasSubstr("found -1"));
  EXPECT_THAT(error(tensor("a", "F32", "[1.5]", "[0,4]"), 4), HasSubstr("found 1.5"));
  EXPECT_THAT(error(tensor("a", "F32", "[9223372036854775807,9223372036854775807]", "[0,4]"), 4),
              HasSubstr("out of range"));
  EXPECT_THAT(error(tensor("a", "F32", "{}", "[0,4]"), 4), HasSubstr("expected a shape"));
  EXPECT_THAT(error("\"a\":3", 4), HasSubstr("expected an object"));
  EXPECT_THAT(error("\"a\":", 4), HasSubstr("no JSON"));
  EXPECT_THAT(error_of(folder, ""), HasSubstr("found no header"));
  EXPECT_THAT(error_of(folder, file_of("[]", 0)), HasSubstr("found no header"));
  EXPECT_THAT(error_of(folder, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{", 9)), HasSubstr("found no header"));
}

}  // namespace
}  // namespace strobe::clip
