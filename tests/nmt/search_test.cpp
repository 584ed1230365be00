// Decoding against exhaustive search, the cache against the whole prefix, beams against greedy, batches against
// sentences.
#include "nmt/search.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <map>

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
  const at::Tensor log_p = model->forward(batch).to(at::kDouble).log_softmax(-1);
  double sum = 0.0;
  for (int64_t t = 0; t < batch.target_out.size(1); ++t) {
    sum += log_p[t][batch.target_out[0][t].item<int64_t>()].item<double>();
  }
  return sum;
}

/// Every sentence that ends within `limit` tokens, eos included, scored as `options` say, best first.
NBest exhaustive(Transformer& model, const EncodedPair& source, const SearchOptions& options) {
  NBest all;
  std::vector<std::vector<int64_t>> prefixes = {{}};
  for (int64_t length = 1; length <= options.max_length; ++length) {
    std::vector<std::vector<int64_t>> longer;
    for (const auto& prefix : prefixes) {
      if (length > options.min_length) all.push_back({prefix, 0.0, log_probability(model, source, prefix, true)});
      for (int64_t id = 0; id < model->config().target_vocabulary; ++id) {
        if (id == kPadId || id == kBosId || id == kEosId) continue;
        longer.push_back(prefix);
        longer.back().push_back(id);
      }
    }
    prefixes = std::move(longer);
  }
  return all;
}

NBest ranked(NBest all, const SearchOptions& options) {
  for (Hypothesis& hypothesis : all) {
    const double tokens = double(hypothesis.ids.size()) + 1.0;
    hypothesis.score =
        (hypothesis.log_probability - options.word_penalty * tokens) / std::pow(tokens, options.length_penalty);
  }
  std::sort(all.begin(), all.end(), [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  return all;
}

using Search = EveryAttention;
STROBE_FOR_EVERY_ATTENTION(Search);

constexpr double kScoreTolerance = 1e-4;  // fp32 log-probabilities of a few tokens, each off by some 1e-6 at most

TEST_P(Search, StepsEqualTheWholePrefix) {
  const c10::NoGradGuard no_grad;
  Transformer model = decisive_model(small_config(GetParam()));
  const Batch batch = batch_of(random_pairs(4, model->config(), 30, 20));
  const at::Tensor whole = padded(model->forward(batch), batch);
  DecoderState state = model->start(batch.source, batch.source_lengths);
  for (int64_t t = 0; t < batch.target_in.size(1); ++t) {
    const at::Tensor step = model->step(batch.target_in.select(1, t), state);
    const at::Tensor real = batch.target_lengths.gt(t);
    const at::Tensor error = (step - whole.select(1, t)).abs().amax(1).masked_select(real);
    EXPECT_LE(error.max().item<double>(), 2e-5) << "token " << t;  // logits around 4, some 500 roundings deep
  }
  EXPECT_EQ(state.position(), batch.target_in.size(1));
}

/// Four tokens, of which one is unk, and eos: 85 sentences of at most four tokens, which a beam of 5^4 holds with all
/// prefixes.
ModelConfig tiny_vocabulary(const char* attn_type) {
  ModelConfig config = small_config(attn_type);
  config.target_vocabulary = 7;
  return config;
}
constexpr SearchOptions kExhaustiveBeam{.beam = 625, .max_length = 4};

/// The first `found.size()` of `expected`, where scores nearer than rounding may change places.
void expect_list(const NBest& found, const NBest& expected, const std::string& what) {
  std::map<std::vector<int64_t>, double> scores;
  for (const Hypothesis& hypothesis : expected) scores[hypothesis.ids] = hypothesis.score;
  for (std::size_t rank = 0; rank < found.size(); ++rank) {
    EXPECT_NEAR(found[rank].score, expected[rank].score, kScoreTolerance) << what << ", rank " << rank;
    ASSERT_EQ(scores.count(found[rank].ids), 1u) << what << ", rank " << rank << ": no sentence, or found twice";
    EXPECT_NEAR(found[rank].score, scores[found[rank].ids], kScoreTolerance) << what << ", rank " << rank;
    scores.erase(found[rank].ids);
    if (rank > 0) {
      EXPECT_LE(found[rank].score, found[rank - 1].score) << what << ", rank " << rank;
    }
  }
}

TEST_P(Search, WideBeamIsExhaustive) {
  Transformer model = decisive_model(tiny_vocabulary(GetParam()), 4, 6.0);
  const auto pairs = random_pairs(3, model->config(), 8, 21);
  const Batch batch = batch_of(pairs);
  SearchOptions options = kExhaustiveBeam;
  std::vector<NBest> all;
  for (const EncodedPair& pair : pairs) all.push_back(exhaustive(model, pair, options));
  // Lists of 85 hold every sentence; the shorter the list, the earlier the search may stop.
  for (const int64_t n_best : {1, 5, 85}) {
    for (const double a : {0.0, 0.6, 1.7}) {
      for (const double w : {0.0, 0.4, -0.5, -5.0}) {
        options.n_best = n_best;
        options.length_penalty = a;
        options.word_penalty = w;
        const auto found = beam_search(model, batch.source, batch.source_lengths, options);
        for (std::size_t i = 0; i < pairs.size(); ++i) {
          ASSERT_EQ(found[i].size(), std::size_t(n_best));
          expect_list(found[i], ranked(all[i], options),
                      fmt::format("sentence {}, {} best, penalties {} and {}", i, n_best, a, w));
        }
      }
    }
  }
}

TEST_P(Search, MinimalLengthIsExhaustiveToo) {
  Transformer model = decisive_model(tiny_vocabulary(GetParam()), 4, 6.0);
  const auto pairs = random_pairs(2, model->config(), 8, 21);
  const Batch batch = batch_of(pairs);
  SearchOptions options = kExhaustiveBeam;
  options.min_length = 2;
  options.n_best = 16 + 64;  // sentences of two and of three tokens
  const auto found = beam_search(model, batch.source, batch.source_lengths, options);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    // Without eos among the choices the others keep their probabilities: nothing is renormalised.
    const NBest expected = ranked(exhaustive(model, pairs[i], options), options);
    ASSERT_EQ(found[i].size(), expected.size());
    expect_list(found[i], expected, fmt::format("sentence {}", i));
  }
}

TEST_P(Search, BeamOfOneIsGreedy) {
  Transformer model = decisive_model(small_config(GetParam()));
  const Batch batch = batch_of(random_pairs(12, model->config(), 20, 22));
  SearchOptions options{.beam = 1, .max_length = 25};
  const auto greedy = greedy_search(model, batch.source, batch.source_lengths, options);
  const auto beam = beam_search(model, batch.source, batch.source_lengths, options);
  for (std::size_t i = 0; i < greedy.size(); ++i) {
    ASSERT_EQ(greedy[i].size(), 1u);
    ASSERT_EQ(beam[i].size(), 1u);
    EXPECT_EQ(greedy[i].front().ids, beam[i].front().ids) << i;
    EXPECT_NEAR(greedy[i].front().score, beam[i].front().score, kScoreTolerance);
  }
}

TEST_P(Search, BatchesEqualSingleSentences) {
  Transformer model = decisive_model(small_config(GetParam()));
  const auto pairs = random_pairs(10, model->config(), 25, 23);
  const Batch together = batch_of(pairs);
  for (const int64_t beam : {1, 3}) {
    const SearchOptions options{
        .beam = beam, .n_best = beam, .max_length = 20, .length_penalty = 0.6, .word_penalty = 0.2};
    const auto found = search(model, together.source, together.source_lengths, options);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const Batch alone = batch_of({pairs[i]});
      const auto single = search(model, alone.source, alone.source_lengths, options);
      ASSERT_EQ(found[i].size(), single[0].size());
      for (std::size_t rank = 0; rank < found[i].size(); ++rank) {
        EXPECT_EQ(found[i][rank].ids, single[0][rank].ids) << "beam " << beam << ", sentence " << i;
        EXPECT_NEAR(found[i][rank].score, single[0][rank].score, kScoreTolerance);
      }
    }
  }
}

TEST_P(Search, ScoresAreLogProbabilities) {
  Transformer model = decisive_model(small_config(GetParam()));
  {
    const c10::NoGradGuard no_grad;
    model->named_parameters()["generator.bias"][kEosId].fill_(8.0);  // some end before the limit, some do not
  }
  const auto pairs = random_pairs(8, model->config(), 20, 24);
  const Batch batch = batch_of(pairs);
  const int64_t limit = 15;
  const auto found = search(model, batch.source, batch.source_lengths, {.beam = 4, .n_best = 4, .max_length = limit});
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    for (const Hypothesis& hypothesis : found[i]) {
      const bool finished = static_cast<int64_t>(hypothesis.ids.size()) < limit;
      const double expected = log_probability(model, pairs[i], hypothesis.ids, finished);
      EXPECT_NEAR(hypothesis.log_probability, expected, 3 * kScoreTolerance) << i;
      EXPECT_EQ(hypothesis.score, hypothesis.log_probability);
      EXPECT_THAT(hypothesis.ids, testing::Not(testing::Contains(testing::AnyOf(kPadId, kBosId, kEosId))));
    }
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
    for (const NBest& empty : search(silent, batch.source, batch.source_lengths, {.beam = beam})) {
      EXPECT_TRUE(empty.front().ids.empty());
    }
    for (const NBest& longer : search(silent, batch.source, batch.source_lengths, {.beam = beam, .min_length = 3})) {
      EXPECT_EQ(longer.front().ids.size(), 3u);
    }
    for (const NBest& full : search(endless, batch.source, batch.source_lengths, {.beam = beam, .max_length = 7})) {
      EXPECT_EQ(full.front().ids, std::vector<int64_t>(7, 10));
    }
    for (const NBest& full : search(endless, batch.source, batch.source_lengths, {.beam = beam})) {
      EXPECT_EQ(full.front().ids.size(), 60u);
    }
    for (const NBest& full : search(endless, batch.source, batch.source_lengths, {.beam = beam, .min_length = 80})) {
      EXPECT_EQ(full.front().ids.size(), 81u);
    }
  }
}

TEST(SearchStops, TheBestIsNotGivenUpForFinishedOnes) {
  // p(10) = 0.9 and p(eos) = 0.1 at every step: eos ranks second, so a beam of 2 has finished two hypotheses after two
  // steps. The first of them, with probability 0.1, is the best there is; any longer one has 0.9^n 0.1.
  Transformer model = biased_model({{10, std::log(0.9)}, {kEosId, std::log(0.1)}});
  const Batch batch = batch_of(random_pairs(2, small_config("dotscale"), 10, 26));
  const auto best = [&](SearchOptions options) {
    options.beam = 2;
    options.max_length = 20;
    return search(model, batch.source, batch.source_lengths, options)[0].front();
  };
  EXPECT_TRUE(best({}).ids.empty());
  EXPECT_NEAR(best({}).score, std::log(0.1), 1e-5);
  // By log-probability per token the longest that ends is the best: (19 ln 0.9 + ln 0.1) / 20.
  const Hypothesis longest = best({.length_penalty = 1.0});
  EXPECT_EQ(longest.ids, std::vector<int64_t>(19, 10));
  EXPECT_NEAR(longest.score, (19 * std::log(0.9) + std::log(0.1)) / 20, 1e-5);
  // A reward above -ln 0.9 for each token makes the longest the best too, a smaller one does not.
  EXPECT_EQ(best({.word_penalty = -0.2}).ids.size(), 19u);
  EXPECT_NEAR(best({.word_penalty = -0.2}).score, 19 * std::log(0.9) + std::log(0.1) + 20 * 0.2, 1e-5);
  EXPECT_TRUE(best({.word_penalty = -0.05}).ids.empty());
  // With both, a length in between: f(t) = (t ln 0.9 + ln(0.1 / 0.9) - w t) / sqrt(t) has its maximum where
  // t (ln 0.9 - w) = ln(0.1 / 0.9), at t = 7.3 for this w, and f(7) > f(8).
  const double per_token = std::log(0.1 / 0.9) / 7.3;
  EXPECT_EQ(best({.length_penalty = 0.5, .word_penalty = std::log(0.9) - per_token}).ids.size(), 6u);
}

TEST(SearchLists, HoldWhatWasFinishedAndElseWhatWasNot) {
  const Batch batch = batch_of(random_pairs(2, small_config("dotscale"), 10, 28));
  // Two tokens and eos; three steps finish at most what a beam of 3 held.
  Transformer model = biased_model({{10, std::log(0.5)}, {11, std::log(0.3)}, {kEosId, std::log(0.2)}});
  const auto lists = search(model, batch.source, batch.source_lengths, {.beam = 3, .n_best = 3, .max_length = 3});
  const auto ids = [](const NBest& list) {
    std::vector<std::vector<int64_t>> all;
    for (const Hypothesis& hypothesis : list) all.push_back(hypothesis.ids);
    return all;
  };
  // Step 1 finishes "" (0.2) and keeps 10, 11; step 2 ranks 10 10 (.25), 10 11 (.15), 11 10 (.15), 10 eos (.1) too late
  // for a beam of 3; so does step 3.
  EXPECT_EQ(ids(lists[0]), (std::vector<std::vector<int64_t>>{{}}));
  EXPECT_EQ(ids(lists[1]), ids(lists[0]));
  Transformer endless = biased_model({{10, std::log(0.7)}, {11, std::log(0.3)}});
  const auto unfinished =
      search(endless, batch.source, batch.source_lengths, {.beam = 2, .n_best = 2, .max_length = 1});
  EXPECT_EQ(ids(unfinished[0]), (std::vector<std::vector<int64_t>>{{10}, {11}}));
}

TEST(SearchOptionsTest, RejectsWhatIsOutOfRange) {
  EXPECT_THROW(validate(SearchOptions{.beam = 0}), Error);
  EXPECT_THROW(validate(SearchOptions{.max_length = -1}), Error);
  EXPECT_THROW(validate(SearchOptions{.length_penalty = -0.5}), Error);
  EXPECT_THROW(validate(SearchOptions{.word_penalty = std::nan("")}), Error);
  EXPECT_THROW(validate(SearchOptions{.beam = 3, .n_best = 4}), Error);
  EXPECT_THROW(validate(SearchOptions{.n_best = 0}), Error);
  EXPECT_THROW(validate(SearchOptions{.max_length = 5, .min_length = 5}), Error);
  EXPECT_NO_THROW(validate(SearchOptions{.beam = 4, .n_best = 4, .max_length = 5, .min_length = 4}));
}

TEST(SearchMode, IsEvaluationAndIsPutBack) {
  Transformer model = decisive_model(small_config("dotscale", 0.5));
  model->train();
  const Batch batch = batch_of(random_pairs(4, model->config(), 20, 27));
  const auto first = search(model, batch.source, batch.source_lengths, {.max_length = 20});
  const auto second = search(model, batch.source, batch.source_lengths, {.max_length = 20});
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].front().score, second[i].front().score);
  EXPECT_TRUE(model->is_training());
}

}  // namespace
}  // namespace strobe::nmt
