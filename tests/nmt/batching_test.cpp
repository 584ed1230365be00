#include "nmt/batching.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "nmt/shuffle.h"
#include "nmt/vocabulary.h"
#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::HasSubstr;
using Batches = std::vector<std::vector<int64_t>>;

/// Sentences of 3 to 42 ids; the target about as long as the source.
std::vector<EncodedPair> corpus(std::size_t size) {
  std::mt19937_64 engine(3);
  std::vector<EncodedPair> data(size);
  for (EncodedPair& pair : data) {
    const std::size_t length = 3 + draw_below(engine, 36);
    pair.source.assign(length, 7);
    pair.target.assign(length + draw_below(engine, 5), 8);
  }
  return data;
}

int64_t source_slots(const std::vector<EncodedPair>& data, const std::vector<int64_t>& batch) {
  std::size_t longest = 0;
  for (const int64_t i : batch) longest = std::max(longest, data[i].source.size());
  return static_cast<int64_t>(longest * batch.size());
}
int64_t target_slots(const std::vector<EncodedPair>& data, const std::vector<int64_t>& batch) {
  std::size_t longest = 0;
  for (const int64_t i : batch) longest = std::max(longest, data[i].target.size() - 1);
  return static_cast<int64_t>(longest * batch.size());
}

void expect_every_sentence_once(const Batches& batches, std::size_t size) {
  std::vector<int64_t> seen;
  for (const auto& batch : batches) seen.insert(seen.end(), batch.begin(), batch.end());
  std::sort(seen.begin(), seen.end());
  std::vector<int64_t> all(size);
  std::iota(all.begin(), all.end(), int64_t{0});
  EXPECT_EQ(seen, all);
}

TEST(Batching, TakesEverySentenceOnceWithinTheLimits) {
  const std::vector<EncodedPair> data = corpus(1000);
  for (const BatchLimits limits : {BatchLimits{32, 0}, BatchLimits{0, 500}, BatchLimits{16, 400}, BatchLimits{1, 0}}) {
    for (const Batches& batches : {bucket_batches(data, limits, 1, 1), sorted_batches(data, limits)}) {
      expect_every_sentence_once(batches, data.size());
      for (const auto& batch : batches) {
        EXPECT_FALSE(batch.empty());
        if (limits.sentences > 0) {
          EXPECT_LE(static_cast<int64_t>(batch.size()), limits.sentences);
        }
        if (limits.max_tokens > 0) {
          EXPECT_LE(source_slots(data, batch), limits.max_tokens);
          EXPECT_LE(target_slots(data, batch), limits.max_tokens);
        }
      }
    }
  }
}

TEST(Batching, ASentenceBeyondMaxTokensIsAloneInItsBatch) {
  std::vector<EncodedPair> data = corpus(50);
  data[17].source.assign(300, 7);
  for (const Batches& batches : {bucket_batches(data, {0, 100}, 1, 1), sorted_batches(data, {0, 100})}) {
    expect_every_sentence_once(batches, data.size());
    EXPECT_EQ(std::count(batches.begin(), batches.end(), std::vector<int64_t>{17}), 1);
  }
}

TEST(Batching, IsAFunctionOfSeedAndEpoch) {
  const std::vector<EncodedPair> data = corpus(500);
  const Batches first = bucket_batches(data, {32, 0}, 1, 1);
  EXPECT_EQ(bucket_batches(data, {32, 0}, 1, 1), first);
  EXPECT_NE(bucket_batches(data, {32, 0}, 1, 2), first);
  EXPECT_NE(bucket_batches(data, {32, 0}, 2, 1), first);
  EXPECT_NE(bucket_batches(data, {32, 0}, 2, 1), bucket_batches(data, {32, 0}, 1, 2));
}

// The order must be the same with every compiler and standard library. The expected one was computed in Python from the
// published definition of mt19937_64.
TEST(Batching, TheShuffleIsPortable) {
  std::mt19937_64 engine(42);
  std::vector<int> items{0, 1, 2, 3, 4, 5, 6, 7};
  shuffle(items, engine);
  EXPECT_EQ(items, (std::vector<int>{7, 0, 5, 1, 2, 4, 3, 6}));
}

TEST(Batching, DrawsAreUniform) {
  std::mt19937_64 engine(5);
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) ++counts[draw_below(engine, 6)];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 460);  // 5 standard deviations
}

TEST(Batching, WastesLittleOnPadding) {
  const std::vector<EncodedPair> data = corpus(20000);
  int64_t slots = 0, tokens = 0;
  for (const auto& indices : bucket_batches(data, {32, 0}, 1, 1)) {
    const Batch batch = make_batch(data, indices, at::kCPU);
    slots += batch.source.numel() + batch.target_in.numel();
    tokens += batch.source_tokens + batch.target_tokens;
  }
  EXPECT_LT(static_cast<double>(slots - tokens) / static_cast<double>(slots), 0.1);
}

TEST(Batching, BatchesForEvaluationComeLongestFirst) {
  const std::vector<EncodedPair> data = corpus(300);
  std::size_t before = SIZE_MAX;
  for (const auto& batch : sorted_batches(data, {16, 0})) {
    for (const int64_t i : batch) {
      EXPECT_LE(data[i].target.size(), before);
      before = data[i].target.size();
    }
  }
}

TEST(Batching, RefusesLimitsThatLimitNothing) {
  const std::vector<EncodedPair> data = corpus(5);
  for (const BatchLimits limits : {BatchLimits{0, 0}, BatchLimits{-1, 0}, BatchLimits{8, -5}}) {
    EXPECT_THAT(message_of<Error>([&] { bucket_batches(data, limits, 1, 1); }), HasSubstr("limits: expected"));
    EXPECT_THAT(message_of<Error>([&] { sorted_batches(data, limits); }), HasSubstr("limits: expected"));
  }
  EXPECT_TRUE(bucket_batches({}, {32, 0}, 1, 1).empty());
}

TEST(Batching, PadsOnTheRightAndShiftsTheTarget) {
  const std::vector<EncodedPair> data{{{2, 10, 11, 3}, {2, 20, 3}}, {{2, 3}, {2, 21, 22, 23, 3}}, {{2, 12, 3}, {2, 3}}};
  const Batch batch = make_batch(data, {1, 0}, at::kCPU);
  const auto rows = [](const at::Tensor& t) {
    return std::vector<int64_t>(t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel());
  };
  const auto lengths = [](const at::Tensor& t) {
    return std::vector<int32_t>(t.const_data_ptr<int32_t>(), t.const_data_ptr<int32_t>() + t.numel());
  };
  EXPECT_EQ(batch.source.sizes(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(batch.target_in.sizes(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(rows(batch.source), (std::vector<int64_t>{2, 3, 0, 0, 2, 10, 11, 3}));
  EXPECT_EQ(rows(batch.target_in), (std::vector<int64_t>{2, 21, 22, 23, 2, 20, 0, 0}));
  EXPECT_EQ(rows(batch.target_out), (std::vector<int64_t>{21, 22, 23, 3, 20, 3, 0, 0}));
  EXPECT_EQ(lengths(batch.source_lengths), (std::vector<int32_t>{2, 4}));
  EXPECT_EQ(lengths(batch.target_lengths), (std::vector<int32_t>{4, 2}));
  EXPECT_EQ(batch.source_tokens, 6);
  EXPECT_EQ(batch.target_tokens, 6);
}

TEST(Batching, KnowsWhereTheRealTokensAre) {
  const std::vector<EncodedPair> data{{{2, 10, 11, 3}, {2, 20, 3}}, {{2, 3}, {2, 21, 22, 23, 3}}};
  const Batch batch = make_batch(data, {1, 0}, at::kCPU);
  const auto ids = [](const at::Tensor& t) {
    return std::vector<int64_t>(t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel());
  };
  const auto starts = [](const nn::Sequences& sequences) {
    const at::Tensor& t = sequences.cu_seqlens;
    return std::vector<int32_t>(t.const_data_ptr<int32_t>(), t.const_data_ptr<int32_t>() + t.numel());
  };
  const RealTokens &source = batch.source_real, &target = batch.target_real;
  EXPECT_EQ(ids(source.slots), (std::vector<int64_t>{0, 1, 4, 5, 6, 7}));
  EXPECT_EQ(ids(source.sequences.positions), (std::vector<int64_t>{0, 1, 0, 1, 2, 3}));
  EXPECT_EQ(starts(source.sequences), (std::vector<int32_t>{0, 2, 6}));
  EXPECT_EQ(starts(target.sequences), (std::vector<int32_t>{0, 4, 6}));
  EXPECT_EQ(source.sequences.longest, 4);
  EXPECT_EQ(target.sequences.longest, 4);
  EXPECT_TRUE(source.sequences.packed());
  EXPECT_EQ(ids(source.of(batch.source)), (std::vector<int64_t>{2, 3, 2, 10, 11, 3}));
  EXPECT_EQ(ids(target.of(batch.target_in)), (std::vector<int64_t>{2, 21, 22, 23, 2, 20}));
  EXPECT_EQ(ids(target.of(batch.target_out)), (std::vector<int64_t>{21, 22, 23, 3, 20, 3}));
}

TEST(Batching, WithoutPaddingAllSlotsAreReal) {
  const std::vector<EncodedPair> data{{{2, 10, 3}, {2, 20, 3}}, {{2, 11, 3}, {2, 21, 3}}};
  const Batch batch = make_batch(data, {0, 1}, at::kCPU);
  EXPECT_TRUE(batch.source_real.of(batch.source).equal(batch.source.flatten()));
  EXPECT_EQ(batch.source_real.sequences.cu_seqlens[2].item<int32_t>(), 6);
}

}  // namespace
}  // namespace strobe::nmt
