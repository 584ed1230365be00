#include "clip/evaluation/evaluate.h"

#include "tests/clip/evaluation/folder_test.h"
#include "tests/message_of.h"

namespace strobe::clip {
namespace {

using Evaluate = FolderTest;

constexpr char kTen[] = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";

std::string prediction(const std::string& id, const std::string& list = kTen) {
  return "{\"text_id\": " + id + ", \"image_ids\": " + list + "}\n";
}

TEST_F(Evaluate, CountsTheFirstHitOfEachQuery) {
  const auto truth = write("truth.jsonl",
                           "{\"text_id\": 1, \"image_ids\": [1, 99]}\n{\"text_id\": 2, \"image_ids\": [6, 5]}\n"
                           "{\"text_id\": 3, \"image_ids\": [10]}\n{\"text_id\": 4, \"image_ids\": []}\n");
  const auto predictions = write("p.jsonl", prediction("1") + prediction("2") + prediction("3") + prediction("4"));
  const RecallAtK recall = evaluate_retrieval(truth, predictions, Retrieval::kTextToImage);
  EXPECT_EQ(recall.r1, 0.25);
  EXPECT_EQ(recall.r5, 0.5);
  EXPECT_EQ(recall.r10, 0.75);
}

TEST_F(Evaluate, AnIdIsWhatItReads) {
  const auto truth = write("truth.jsonl", "{\"text_id\": \"a\", \"image_ids\": [\"3\"]}\n");
  const auto predictions =
      write("p.jsonl", prediction("\"a\"") + prediction("\"b\"", "[\"x\", 2, 3, 4, 5, 6, 7, 8, 9, 0]"));
  EXPECT_EQ(evaluate_retrieval(truth, predictions, Retrieval::kTextToImage).r5, 1.0);
}

TEST_F(Evaluate, TheLaterOfTwoLinesCounts) {
  const auto truth =
      write("truth.jsonl", "{\"text_id\": 1, \"image_ids\": [7]}\n{\"text_id\": 1, \"image_ids\": [20]}\n");
  const auto predictions = write("p.jsonl", prediction("1") + prediction("1", "[20, 2, 3, 4, 5, 6, 7, 8, 9, 10]"));
  EXPECT_EQ(evaluate_retrieval(truth, predictions, Retrieval::kTextToImage).r1, 1.0);
}

TEST_F(Evaluate, MissingQueriesAreNamedInTheAnnotationsOrder) {
  const auto truth = write("truth.jsonl",
                           "{\"text_id\": 9, \"image_ids\": []}\n{\"text_id\": 1, \"image_ids\": []}\n"
                           "{\"text_id\": \"x\", \"image_ids\": []}\n");
  const auto predictions = write("p.jsonl", prediction("1"));
  EXPECT_EQ(message_of<EvaluationError>([&] { evaluate_retrieval(truth, predictions, Retrieval::kTextToImage); }),
            "The following text_ids have no prediction in your submission, please check again: 9, x");
}

TEST_F(Evaluate, AnnotationsThatCannotBeReadAreNamedWithTheirLine) {
  const auto predictions = write("p.jsonl", prediction("1"));
  const auto message = [&](const std::string& line) {
    const auto truth = write("truth.jsonl", "{\"text_id\": 1, \"image_ids\": []}\n" + line + "\n");
    return message_of<Error>([&] { evaluate_retrieval(truth, predictions, Retrieval::kTextToImage); });
  };
  EXPECT_NE(message("{").find("truth.jsonl, line 2: expected a JSON object"), std::string::npos);
  EXPECT_NE(message("{\"text_id\": 1}").find("line 2: has no image_ids"), std::string::npos);
  EXPECT_NE(message("{\"text_id\": 1, \"image_ids\": 3}").find("image_ids: expected a list"), std::string::npos);
  EXPECT_NE(message("{\"text_id\": null, \"image_ids\": []}").find("text_id: expected an integer"), std::string::npos);
  const auto empty = write("empty.jsonl", "");
  EXPECT_NE(message_of<Error>([&] { evaluate_retrieval(empty, predictions, Retrieval::kTextToImage); }).find("no line"),
            std::string::npos);
  EXPECT_NE(
      message_of<Error>([&] { evaluate_retrieval(folder() / "x", predictions, Retrieval::kTextToImage); }).find("/x"),
      std::string::npos);
}

TEST_F(Evaluate, TransposedAnnotationsKeepTheFirstOrder) {
  const std::vector<Annotation> texts{
      {{"1", true}, {{"7", true}, {"b", false}}}, {{"2", true}, {}}, {{"3", true}, {{"b", false}, {"7", true}}}};
  const std::vector<Annotation> images = transposed(texts);
  ASSERT_EQ(images.size(), 2U);
  EXPECT_EQ(images[0].query, (Id{"7", true}));
  EXPECT_EQ(images[0].answers, (std::vector<Id>{{"1", true}, {"3", true}}));
  EXPECT_EQ(images[1].query, (Id{"b", false}));
  EXPECT_EQ(images[1].answers, (std::vector<Id>{{"1", true}, {"3", true}}));
}

TEST(ResultJson, IsTheOriginals) {
  EXPECT_EQ(
      result_json({0.5, 0.75, 1.0}),
      R"({"success": true, "score": 75.0, "scoreJson": {"score": 75.0, "mean_recall": 75.0, "r1": 50.0, "r5": 75.0, )"
      R"("r10": 100.0}})");
  EXPECT_EQ(failure_json("图"),
            R"({"errorDetail": "\u56fe", "errorMsg": "\u56fe", "score": 0, "scoreJson": {}, "success": false})");
}

}  // namespace
}  // namespace strobe::clip
