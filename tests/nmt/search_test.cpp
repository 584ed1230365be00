// Decoding against exhaustive search, the cache against the whole prefix, beams against greedy, batches against
// sentences.
#include "nmt/search.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "model_fixture.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

/// Random weights alone say little; large ones in the generator make the choices differ from sentence to sentence.
Transformer decisive_model(ModelConfig config, uint64_t seed = 3, double gain = 4.0) {
  Transformer model = seeded_model(config, seed);
  const c10::NoGradGuard no_grad;
  model->named_parameters()["generator.weight"].mul_(gain);
  model->eval();
  return model;
}

/// The log-probability of `ids` and, where asked for, eos, from whole prefixes, in double.
double log_probability(Transformer& model, const EncodedPair& source, const std::vector<int64_t>& ids, bool with_eos) {
  const c10::NoGradGuard no_grad;
  EncodedPair pair{source.source, {kBosId}};
  pair.target.insert(pair.target.end(), ids.begin(), ids.end());
  if (with_eos) pair.target.push_back(kEosId);
  const Batch batch = batch_of({pair});
  const at::Tensor log_p = model->forward(batch)[0].to(at::kDouble).log_softmax(-1);
  double sum = 0.0;
  for (int64_t t = 0; t < batch.target_out.size(1); ++t) {
    sum += log_p[t][batch.target_out[0][t].item<int64_t>()].item<double>();
  }
  return sum;
}

/// The best of all sentences that end within `limit` tokens.
Hypothesis exhaustive(Transformer& model, const EncodedPair& source, int64_t limit, double length_penalty) {
  Hypothesis best{{}, -std::numeric_limits<double>::infinity()};
  std::vector<std::vector<int64_t>> prefixes = {{}};
  for (int64_t length = 1; length <= limit; ++length) {  // eos included
    std::vector<std::vector<int64_t>> longer;
    for (const auto& prefix : prefixes) {
      const double score = log_probability(model, source, prefix, true) / std::pow(double(length), length_penalty);
      if (score > best.score) best = {prefix, score};
      for (int64_t id = 0; id < model->config().target_vocabulary; ++id) {
        if (id == kPadId || id == kBosId || id == kEosId) continue;
        longer.push_back(prefix);
        longer.back().push_back(id);
      }
    }
    prefixes = std::move(longer);
  }
  return best;
}

using Search = EveryAttention;
STROBE_FOR_EVERY_ATTENTION(Search);

constexpr double kScoreTolerance = 1e-4;  // fp32 log-probabilities of a few tokens, each off by some 1e-6 at most

TEST_P(Search, StepsEqualTheWholePrefix) {
  const c10::NoGradGuard no_grad;
  Transformer model = decisive_model(small_config(GetParam()));
  const Batch batch = batch_of(random_pairs(4, model->config(), 30, 20));
  const at::Tensor whole = model->forward(batch);
  DecoderState state = model->start(batch.source, batch.source_lengths);
  for (int64_t t = 0; t < batch.target_in.size(1); ++t) {
    const at::Tensor step = model->step(batch.target_in.select(1, t), state);
    const at::Tensor real = batch.target_lengths.gt(t);
    const at::Tensor error = (step - whole.select(1, t)).abs().amax(1).masked_select(real);
    EXPECT_LE(error.max().item<double>(), 2e-5) << "token " << t;  // logits around 4, some 500 roundings deep
  }
  EXPECT_EQ(state.position(), batch.target_in.size(1));
}

TEST_P(Search, WideBeamIsExhaustive) {
  ModelConfig config = small_config(GetParam());
  config.target_vocabulary = 7;  // four tokens, of which one is unk, and eos
  Transformer model = decisive_model(config, 4, 6.0);
  const auto pairs = random_pairs(4, config, 8, 21);
  const Batch batch = batch_of(pairs);
  for (const double length_penalty : {0.0, 1.0}) {
    SearchOptions options{.beam = 256, .max_length = 4, .length_penalty = length_penalty};  // 4^4 prefixes at most
    const auto found = beam_search(model, batch.source, batch.source_lengths, options);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const Hypothesis expected = exhaustive(model, pairs[i], 4, length_penalty);
      EXPECT_EQ(found[i].ids, expected.ids) << "sentence " << i << ", penalty " << length_penalty;
      EXPECT_NEAR(found[i].score, expected.score, kScoreTolerance);
    }
  }
}

TEST_P(Search, BeamOfOneIsGreedy) {
  Transformer model = decisive_model(small_config(GetParam()));
  const Batch batch = batch_of(random_pairs(12, model->config(), 20, 22));
  SearchOptions options{.beam = 1, .max_length = 25, .length_penalty = 0.0};
  const auto greedy = greedy_search(model, batch.source, batch.source_lengths, options);
  const auto beam = beam_search(model, batch.source, batch.source_lengths, options);
  for (std::size_t i = 0; i < greedy.size(); ++i) {
    EXPECT_EQ(greedy[i].ids, beam[i].ids) << i;
    EXPECT_NEAR(greedy[i].score, beam[i].score, kScoreTolerance);
  }
}

TEST_P(Search, BatchesEqualSingleSentences) {
  Transformer model = decisive_model(small_config(GetParam()));
  const auto pairs = random_pairs(10, model->config(), 25, 23);
  const Batch together = batch_of(pairs);
  for (const int64_t beam : {1, 3}) {
    const SearchOptions options{.beam = beam, .max_length = 20, .length_penalty = 0.6};
    const auto found = search(model, together.source, together.source_lengths, options);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const Batch alone = batch_of({pairs[i]});
      const auto single = search(model, alone.source, alone.source_lengths, options);
      EXPECT_EQ(found[i].ids, single[0].ids) << "beam " << beam << ", sentence " << i;
      EXPECT_NEAR(found[i].score, single[0].score, kScoreTolerance);
    }
  }
}

TEST_P(Search, ScoresAreLogProbabilities) {
  Transformer model = decisive_model(small_config(GetParam()));
  const auto pairs = random_pairs(8, model->config(), 20, 24);
  const Batch batch = batch_of(pairs);
  const int64_t limit = 15;
  const auto found = search(model, batch.source, batch.source_lengths, {.beam = 4, .max_length = limit});
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const bool finished = static_cast<int64_t>(found[i].ids.size()) < limit;
    EXPECT_NEAR(found[i].score, log_probability(model, pairs[i], found[i].ids, finished), 3 * kScoreTolerance) << i;
    EXPECT_THAT(found[i].ids, testing::Not(testing::Contains(testing::AnyOf(kPadId, kBosId, kEosId))));
  }
}

/// A generator whose bias alone decides, so that eos, or anything else, comes when a test wants it.
Transformer biased_model(const std::vector<std::pair<int64_t, double>>& biases) {
  Transformer model = seeded_model(small_config("dotscale"));
  const c10::NoGradGuard no_grad;
  auto parameters = model->named_parameters();
  parameters["generator.weight"].zero_();
  parameters["generator.bias"].fill_(-30.0);
  for (const auto& [id, bias] : biases) parameters["generator.bias"][id].fill_(bias);
  return model;
}

TEST(SearchLimits, EmptyTranslationsAndTheLengthLimit) {
  const auto pairs = random_pairs(3, small_config("dotscale"), 10, 25);
  const Batch batch = batch_of(pairs);
  Transformer silent = biased_model({{kEosId, 5.0}});
  Transformer endless = biased_model({{10, 5.0}});
  for (const int64_t beam : {1, 3}) {
    for (const Hypothesis& empty : search(silent, batch.source, batch.source_lengths, {.beam = beam})) {
      EXPECT_TRUE(empty.ids.empty());
    }
    for (const Hypothesis& full :
         search(endless, batch.source, batch.source_lengths, {.beam = beam, .max_length = 7})) {
      EXPECT_EQ(full.ids, std::vector<int64_t>(7, 10));
    }
    for (const Hypothesis& full : search(endless, batch.source, batch.source_lengths, {.beam = beam})) {
      EXPECT_EQ(full.ids.size(), 60u);
    }
  }
}

TEST(SearchStops, TheBestIsNotGivenUpForFinishedOnes) {
  // p(10) = 0.9 and p(eos) = 0.1 at every step: eos ranks second, so a beam of 2 has finished two hypotheses after two
  // steps. The first of them, with probability 0.1, is the best there is; any longer one has 0.9^n 0.1.
  Transformer model = biased_model({{10, std::log(0.9)}, {kEosId, std::log(0.1)}});
  const Batch batch = batch_of(random_pairs(2, small_config("dotscale"), 10, 26));
  const auto plain = search(model, batch.source, batch.source_lengths, {.beam = 2, .max_length = 20});
  EXPECT_TRUE(plain[0].ids.empty());
  EXPECT_NEAR(plain[0].score, std::log(0.1), 1e-5);
  // By log-probability per token the longest that ends is the best: (19 ln 0.9 + ln 0.1) / 20.
  const auto longest =
      search(model, batch.source, batch.source_lengths, {.beam = 2, .max_length = 20, .length_penalty = 1.0});
  EXPECT_EQ(longest[0].ids, std::vector<int64_t>(19, 10));
  EXPECT_NEAR(longest[0].score, (19 * std::log(0.9) + std::log(0.1)) / 20, 1e-5);
}

TEST(SearchOptionsTest, RejectsWhatIsOutOfRange) {
  EXPECT_THROW(validate(SearchOptions{.beam = 0}), Error);
  EXPECT_THROW(validate(SearchOptions{.max_length = -1}), Error);
  EXPECT_THROW(validate(SearchOptions{.length_penalty = -0.5}), Error);
}

TEST(SearchMode, IsEvaluationAndIsPutBack) {
  Transformer model = decisive_model(small_config("dotscale", 0.5));
  model->train();
  const Batch batch = batch_of(random_pairs(4, model->config(), 20, 27));
  const auto first = search(model, batch.source, batch.source_lengths, {.max_length = 20});
  const auto second = search(model, batch.source, batch.source_lengths, {.max_length = 20});
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].score, second[i].score);
  EXPECT_TRUE(model->is_training());
}

}  // namespace
}  // namespace strobe::nmt
