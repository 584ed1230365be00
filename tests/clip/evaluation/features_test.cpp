#include "clip/evaluation/features.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include "strobe/types.h"
#include "tests/clip/evaluation/folder_test.h"
#include "tests/message_of.h"

namespace strobe::clip {
namespace {

using FeatureFiles = FolderTest;

TEST_F(FeatureFiles, GiveBackWhatWasWritten) {
  const std::vector<float> values{0.1F, -1e-6F, 3.0F, 1e-20F, 0.0F, 123456.78F};
  std::string lines;
  append_feature_line(lines, "image_id", {"5", true}, values.data(), 3);
  append_feature_line(lines, "image_id", {"五\"", false}, values.data() + 3, 3);
  const Features features = FeatureReader(write("a.jsonl", lines), "image_id").read_all();
  EXPECT_EQ(features.ids, (std::vector<Id>{{"5", true}, {"五\"", false}}));
  EXPECT_TRUE(features.ids[0].is_integer);
  EXPECT_FALSE(features.ids[1].is_integer);
  EXPECT_TRUE(at::equal(features.values, at::tensor(values).view({2, 3})));
}

TEST_F(FeatureFiles, TakeAnyOrderAndOtherKeys) {
  const auto file = write("a.jsonl",
                          "{\"feature\":[1,2.5e0],\"x\":{\"feature\":[\"]\",{}]},\"text_id\":1}\n\n"
                          "  { \"text_id\" : \"a\" , \"y\" : null, \"feature\" : [ -3 , 4E-1 ] }  \n");
  const Features features = FeatureReader(file, "text_id").read_all();
  EXPECT_EQ(features.ids, (std::vector<Id>{{"1", true}, {"a", false}}));
  EXPECT_TRUE(at::equal(features.values, at::tensor({1.0F, 2.5F, -3.0F, 0.4F}).view({2, 2})));
}

TEST_F(FeatureFiles, ComeInPieces) {
  const auto file = write("a.jsonl",
                          "{\"text_id\":1,\"feature\":[1]}\n{\"text_id\":2,\"feature\":[2]}\n"
                          "{\"text_id\":3,\"feature\":[3]}\n");
  FeatureReader reader(file, "text_id");
  EXPECT_EQ(reader.read(2)->ids.size(), 2U);
  EXPECT_EQ(reader.read(2)->ids.size(), 1U);
  EXPECT_FALSE(reader.read(2));
}

TEST_F(FeatureFiles, AreRefusedWithTheirLine) {
  const auto message = [&](const std::string& second_line) {
    const auto file = write("a.jsonl", "{\"text_id\":1,\"feature\":[1,2]}\n" + second_line + "\n");
    return message_of<Error>([&] { FeatureReader(file, "text_id").read_all(); });
  };
  EXPECT_NE(message("{\"text_id\":2,\"feature\":[1]}").find("line 2: expected 2 numbers"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2,\"feature\":[]}").find("empty"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2,\"feature\":[1,NaN]}").find("finite"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2,\"feature\":[1,1e39]}").find("finite"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2,\"feature\":[1,2").find("expected ']'"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2,\"x\":[1,").find("ends too early"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2}").find("has no feature"), std::string::npos);
  EXPECT_NE(message("{\"image_id\":2,\"feature\":[1,2]}").find("has no text_id"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2.5,\"feature\":[1,2]}").find("integer or a string"), std::string::npos);
  EXPECT_NE(message("[1]").find("expected '{'"), std::string::npos);
  EXPECT_NE(message("{\"text_id\":2,\"feature\":[1,2]} x").find("one JSON object"), std::string::npos);
  const auto empty = write("empty.jsonl", "");
  EXPECT_NE(message_of<Error>([&] { FeatureReader(empty, "text_id").read_all(); }).find("no line"), std::string::npos);
}

}  // namespace
}  // namespace strobe::clip
