#include "nmt/search.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/max.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>

#include "nmt/eval_mode.h"
#include "nmt/vocabulary.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr int64_t kLeastMaxLength = 60;

at::Tensor indices(const std::vector<int64_t>& values, at::Device device) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::dtype(at::kLong));
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor.to(device);
}

/// [R, V] log-probabilities in fp32 of the next token. Those of pad and bos are -inf, and, until `min_length` tokens
/// stand, that of eos.
at::Tensor next_log_probabilities(Transformer& model, const std::vector<int64_t>& ids, DecoderState& state,
                                  const at::Tensor& source, const SearchOptions& options) {
  const bool too_short = state.position() < options.min_length;
  at::Tensor scores = at::log_softmax(model->step(indices(ids, source.device()), state), -1, at::kFloat);
  for (const int64_t id : {kPadId, kBosId}) scores.select(1, id).fill_(kMinusInfinity);
  if (too_short) scores.select(1, kEosId).fill_(kMinusInfinity);
  return scores;
}

/// The most tokens of each sentence: it must not depend on the other sentences of the batch.
std::vector<int64_t> length_limits(const at::Tensor& source_lengths, const SearchOptions& options) {
  const at::Tensor lengths = source_lengths.cpu();
  std::vector<int64_t> limits;
  for (int64_t b = 0; b < lengths.size(0); ++b) {
    const int64_t source = lengths.const_data_ptr<int32_t>()[b];
    limits.push_back(options.max_length > 0 ? options.max_length
                                            : std::max({kLeastMaxLength, 2 * source, options.min_length + 1}));
  }
  return limits;
}

double penalized(double sum, double tokens, const SearchOptions& options) {
  return (sum - options.word_penalty * tokens) / std::pow(tokens, options.length_penalty);
}

/// What no hypothesis of `first` to `last` tokens can exceed whose log-probability is at most `sum`. As a function of
/// the tokens t, (sum - w t) / t^a has the derivative (-a sum - (1 - a) w t) / t^(a + 1): its sign changes at most
/// once, so the maximum lies at an end or there.
double upper_bound(double sum, int64_t first, int64_t last, const SearchOptions& options) {
  const double a = options.length_penalty, w = options.word_penalty;
  const auto low = static_cast<double>(first), high = static_cast<double>(last);
  double bound = std::max(penalized(sum, low, options), penalized(sum, high, options));
  const double turning = -a * sum / ((1.0 - a) * w);  // inf or NaN where there is none
  if (turning > low && turning < high) bound = std::max(bound, penalized(sum, turning, options));
  return bound;
}

struct Live {
  std::vector<int64_t> ids;
  double sum = 0.0;
};

/// The beam of one sentence.
struct Beam {
  int64_t sentence = 0;  // in the input
  int64_t limit = 0;
  std::vector<Live> live;  // best first
  NBest finished;          // best first, those found earlier before their equals
};

void add_finished(NBest& finished, Hypothesis hypothesis, int64_t n_best) {
  const auto place = std::upper_bound(finished.begin(), finished.end(), hypothesis,
                                      [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  finished.insert(place, std::move(hypothesis));
  if (static_cast<int64_t>(finished.size()) > n_best) finished.pop_back();
}

/// What a step found for one sentence, best first.
struct Candidate {
  int64_t parent = 0;  // which of the sentence's live hypotheses
  int64_t token = 0;
  double sum = 0.0;
};

/// Moves the beam one token on. `parents` gets the parent of each live hypothesis.
void advance(Beam& beam, const std::vector<Candidate>& candidates, const SearchOptions& options,
             std::vector<int64_t>& parents) {
  std::vector<Live> live;
  parents.clear();
  for (std::size_t rank = 0; rank < candidates.size(); ++rank) {
    const Candidate& candidate = candidates[rank];
    // NaN compares false: a broken model ends with nothing instead of running on.
    if (!(candidate.sum > kMinusInfinity)) break;
    const std::vector<int64_t>& prefix = beam.live[candidate.parent].ids;
    if (candidate.token != kEosId) {
      if (static_cast<int64_t>(live.size()) == options.beam) break;
      live.push_back({prefix, candidate.sum});
      live.back().ids.push_back(candidate.token);
      parents.push_back(candidate.parent);
    } else if (static_cast<int64_t>(rank) < options.beam) {
      const double score = penalized(candidate.sum, static_cast<double>(prefix.size() + 1), options);
      add_finished(beam.finished, {prefix, score, candidate.sum}, options.n_best);
    }
  }
  beam.live = std::move(live);
}

/// Whether the sentence's result is known after `tokens` steps; if so it is in beam.finished.
bool settle(Beam& beam, int64_t tokens, const SearchOptions& options) {
  NBest& finished = beam.finished;
  if (tokens >= beam.limit && finished.empty()) {
    for (Live& live : beam.live) {
      const double score = penalized(live.sum, static_cast<double>(tokens), options);
      add_finished(finished, {std::move(live.ids), score, live.sum}, options.n_best);
    }
  }
  if (tokens >= beam.limit || beam.live.empty()) {
    if (finished.empty()) finished.push_back({{}, kMinusInfinity, kMinusInfinity});
    return true;
  }
  // A sum only falls as its hypothesis grows.
  return static_cast<int64_t>(finished.size()) == options.n_best &&
         finished.back().score >= upper_bound(beam.live.front().sum, tokens + 1, beam.limit, options);
}

/// Best first; a NaN before all, so that it is not lost in a sort.
bool is_better(const Candidate& a, const Candidate& b) {
  if (std::isnan(a.sum) || std::isnan(b.sum)) return std::isnan(a.sum) && !std::isnan(b.sum);
  return std::tie(b.sum, a.parent, a.token) < std::tie(a.sum, b.parent, b.token);
}

/// The best continuations of every sentence: scores [B * width, V], of which each sentence has `width` rows.
std::vector<std::vector<Candidate>> best_candidates(const at::Tensor& scores, const std::vector<Beam>& beams,
                                                    int64_t width, const SearchOptions& options) {
  // Of 2 * beam continuations at most `beam` end in eos, so that `beam` others are among them. No row can have more of
  // them than that, so each row's best are found before the sums are added: a pass over the vocabulary less.
  const int64_t count = std::min(2 * options.beam, scores.size(1));
  auto [values, tokens] = at::topk(scores, count);
  values = values.cpu();
  tokens = tokens.cpu();
  std::vector<std::vector<Candidate>> candidates(beams.size());
  for (std::size_t b = 0; b < beams.size(); ++b) {
    std::vector<Candidate>& best = candidates[b];
    for (std::size_t w = 0; w < beams[b].live.size(); ++w) {
      const int64_t row = (static_cast<int64_t>(b) * width + static_cast<int64_t>(w)) * count;
      for (int64_t c = row; c < row + count; ++c) {
        const double sum = beams[b].live[w].sum + values.const_data_ptr<float>()[c];
        best.push_back({static_cast<int64_t>(w), tokens.const_data_ptr<int64_t>()[c], sum});
      }
    }
    const auto kept = std::min(best.size(), static_cast<std::size_t>(2 * options.beam));
    std::partial_sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(kept), best.end(), is_better);
    best.resize(kept);
  }
  return candidates;
}

}  // namespace

void validate(const SearchOptions& options) {
  const auto require = [](bool holds, const std::string& text) {
    if (!holds) throw Error("search: " + text);
  };
  require(options.beam >= 1, "beam must be at least 1, got " + std::to_string(options.beam));
  require(options.n_best >= 1 && options.n_best <= options.beam,
          "n_best must be 1 to beam (" + std::to_string(options.beam) + "), got " + std::to_string(options.n_best));
  require(options.max_length >= 0, "max_length must be 0 or positive, got " + std::to_string(options.max_length));
  require(options.min_length >= 0 && (options.max_length == 0 || options.min_length < options.max_length),
          "min_length must be 0 or positive and below max_length, got " + std::to_string(options.min_length));
  require(std::isfinite(options.length_penalty) && options.length_penalty >= 0.0,
          "length_penalty must be 0 or positive, got " + std::to_string(options.length_penalty));
  require(std::isfinite(options.word_penalty),
          "word_penalty must be finite, got " + std::to_string(options.word_penalty));
}

std::vector<NBest> search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                          const SearchOptions& options) {
  return options.beam == 1 ? greedy_search(model, source, source_lengths, options)
                           : beam_search(model, source, source_lengths, options);
}

std::vector<NBest> greedy_search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                                 const SearchOptions& options) {
  validate(options);
  const EvalModeGuard eval(*model);
  const std::vector<int64_t> limits = length_limits(source_lengths, options);
  std::vector<NBest> results(limits.size(), NBest(1));
  std::vector<int64_t> sentences(limits.size());  // of the input, by row
  std::iota(sentences.begin(), sentences.end(), int64_t{0});
  DecoderState state = model->start(source, source_lengths);
  std::vector<int64_t> next(sentences.size(), kBosId);
  while (!sentences.empty()) {
    const auto [best, tokens] = next_log_probabilities(model, next, state, source, options).max(/*dim=*/1);
    const at::Tensor best_cpu = best.cpu(), tokens_cpu = tokens.cpu();
    std::vector<int64_t> rows, remaining;
    next.clear();
    for (std::size_t row = 0; row < sentences.size(); ++row) {
      Hypothesis& result = results[sentences[row]].front();
      const int64_t token = tokens_cpu.const_data_ptr<int64_t>()[row];
      result.log_probability += best_cpu.const_data_ptr<float>()[row];
      if (token != kEosId) result.ids.push_back(token);
      if (token == kEosId || state.position() >= limits[sentences[row]]) {
        result.score = penalized(result.log_probability, static_cast<double>(state.position()), options);
        continue;
      }
      rows.push_back(static_cast<int64_t>(row));
      remaining.push_back(sentences[row]);
      next.push_back(token);
    }
    if (rows.size() < sentences.size() && !rows.empty()) {
      const at::Tensor kept = indices(rows, source.device());
      state.reorder(kept);
      state.keep_sentences(kept);
    }
    sentences = std::move(remaining);
  }
  return results;
}

std::vector<NBest> beam_search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                               const SearchOptions& options) {
  validate(options);
  const EvalModeGuard eval(*model);
  const std::vector<int64_t> limits = length_limits(source_lengths, options);
  std::vector<Beam> beams;
  for (std::size_t b = 0; b < limits.size(); ++b) beams.push_back({static_cast<int64_t>(b), limits[b], {Live{}}, {}});
  std::vector<NBest> results(limits.size());
  DecoderState state = model->start(source, source_lengths);
  std::vector<int64_t> next(beams.size(), kBosId);
  int64_t width = 1;  // rows a sentence: one before the first step
  while (!beams.empty()) {
    const at::Tensor scores = next_log_probabilities(model, next, state, source, options);
    const auto candidates = best_candidates(scores, beams, width, options);
    std::vector<Beam> remaining;
    std::vector<int64_t> kept, rows, parents;
    next.clear();
    for (std::size_t b = 0; b < beams.size(); ++b) {
      Beam& beam = beams[b];
      advance(beam, candidates[b], options, parents);
      if (settle(beam, state.position(), options)) {
        results[beam.sentence] = std::move(beam.finished);
        continue;
      }
      kept.push_back(static_cast<int64_t>(b));
      for (int64_t w = 0; w < options.beam; ++w) {
        // A beam that is not full is filled with its first hypothesis, whose sum counts as -inf there.
        const std::size_t source_of = w < static_cast<int64_t>(parents.size()) ? w : 0;
        rows.push_back(static_cast<int64_t>(b) * width + parents[source_of]);
        next.push_back(beam.live[source_of].ids.back());
      }
      remaining.push_back(std::move(beam));
    }
    if (!remaining.empty()) {
      state.reorder(indices(rows, source.device()));
      if (remaining.size() < beams.size()) state.keep_sentences(indices(kept, source.device()));
    }
    beams = std::move(remaining);
    width = options.beam;
  }
  return results;
}

}  // namespace strobe::nmt
