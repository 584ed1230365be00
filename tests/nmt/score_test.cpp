// Scores against the laws of probability, against search, and batches against single pairs.
#include "nmt/score.h"

#include <c10/core/GradMode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "model_fixture.h"
#include "nmt/search.h"
#include "strobe/types.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace strobe::nmt {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

double total(const std::vector<double>& tokens) { return std::accumulate(tokens.begin(), tokens.end(), 0.0); }

EncodedPair with_target(const EncodedPair& pair, const Ids& ids) {
  EncodedPair result{pair.source, {kBosId}};
  result.target.insert(result.target.end(), ids.begin(), ids.end());
  result.target.push_back(kEosId);
  return result;
}

using Scores = EveryAttention;
STROBE_FOR_EVERY_ATTENTION(Scores);

TEST_P(Scores, AllContinuationsSumToOne) {
  ModelConfig config = small_config(GetParam());
  config.target_vocabulary = 7;
  Transformer model = seeded_model(config);
  {
    const c10::NoGradGuard no_grad;
    // As good as impossible: no target holds them.
    for (const int64_t id : {kPadId, kBosId}) model->named_parameters()["generator.bias"][id].fill_(-1e4);
  }
  constexpr std::size_t kLimit = 3;
  for (const EncodedPair& pair : random_pairs(3, config, 9, 31)) {
    std::vector<EncodedPair> targets;
    std::vector<Ids> prefixes = {{}};
    for (std::size_t length = 0; length <= kLimit; ++length) {
      std::vector<Ids> longer;
      for (const Ids& prefix : prefixes) {
        targets.push_back(with_target(pair, prefix));
        for (const int64_t id : {kUnkId, int64_t{4}, int64_t{5}, int64_t{6}}) {
          longer.push_back(prefix);
          longer.back().push_back(id);
        }
      }
      prefixes = std::move(longer);
    }
    double probability = 0.0;
    const auto scores = token_log_probabilities(model, targets, {});
    for (std::size_t i = 0; i < targets.size(); ++i) {
      std::vector<double> tokens = scores[i];
      ASSERT_EQ(tokens.size(), targets[i].target.size() - 1);
      if (tokens.size() > kLimit) tokens.pop_back();  // whatever follows the longest prefixes
      probability += std::exp(total(tokens));
    }
    EXPECT_NEAR(probability, 1.0, 1e-5);  // 85 fp32 exponentials of sums of four, each off by some 1e-6 at most
  }
}

TEST_P(Scores, AreWhatSearchFound) {
  Transformer model = seeded_model(small_config(GetParam()), 3);
  {
    const c10::NoGradGuard no_grad;
    model->named_parameters()["generator.weight"].mul_(4.0);
    model->named_parameters()["generator.bias"][kEosId].fill_(8.0);
  }
  const auto pairs = random_pairs(8, model->config(), 20, 32);
  const Batch batch = batch_of(pairs);
  const auto found = search(model, batch.source, batch.source_lengths, {.beam = 4, .n_best = 4, .max_length = 15});
  std::size_t compared = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    for (const Hypothesis& hypothesis : found[i]) {
      if (hypothesis.ids.size() == 15) continue;  // unfinished
      const auto scores = token_log_probabilities(model, {with_target(pairs[i], hypothesis.ids)}, {});
      EXPECT_NEAR(total(scores[0]), hypothesis.log_probability, 3e-4);  // fp32 sums of up to 15 tokens on either side
      ++compared;
    }
  }
  EXPECT_GE(compared, 4u);
}

TEST_P(Scores, OfABatchAreThoseOfItsPairs) {
  Transformer model = seeded_model(small_config(GetParam(), 0.5));
  model->train();
  const auto pairs = random_pairs(20, model->config(), 30, 33);
  const auto together = token_log_probabilities(model, pairs, {.batch = {.sentences = 6, .max_tokens = 100}});
  EXPECT_TRUE(model->is_training());
  double sum = 0.0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto alone = token_log_probabilities(model, {pairs[i]}, {});
    ASSERT_EQ(together[i].size(), pairs[i].target.size() - 1);
    EXPECT_THAT(alone[0], testing::Pointwise(testing::DoubleNear(2e-5), together[i])) << i;
    sum -= total(together[i]);
  }
  model->eval();
  const c10::NoGradGuard no_grad;
  EXPECT_NEAR(model->loss(batch_of(pairs), 0.0).item<double>(), sum, 1e-5 * sum);
}

TEST(ScoredLines, AreSourceTabTarget) {
  const SentencePair pair = parse_pair("a b\tc\tignored", 1);
  EXPECT_EQ(pair.source, "a b");
  EXPECT_EQ(pair.target, "c");
  EXPECT_EQ(parse_pair("\t", 1).target, "");
  EXPECT_THAT(message_of<Error>([] { parse_pair("no tab", 7); }), HasSubstr("line 7: expected source, tab, target"));
  EXPECT_THAT(message_of<Error>([] { parse_pair("a\t\xff", 8); }), HasSubstr("line 8: expected UTF-8"));
}

}  // namespace
}  // namespace strobe::nmt
