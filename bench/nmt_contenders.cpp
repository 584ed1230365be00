#include "bench/nmt_contenders.h"

#include <cmath>
#include <optional>
#include <utility>

#include "bench/report.h"
#include "nmt/graphed_loss.h"
#include "strobe/types.h"
#include "train/checkpoint.h"
#include "train/updater.h"

namespace strobe::bench {
namespace {

constexpr double kLossTolerance = 1e-4;      // relative; sums of thousands of fp32 losses
constexpr double kLossTolerance16 = 0x1p-8;  // under bf16, in which nn.Transformer's log-probabilities are rounded
constexpr double kScoreTolerance = 1e-3;     // of a sum of log-probabilities
constexpr double kLeastAgreement = 0.9;      // stopping rules differ, and ties

nmt::Transformer copy_of(const nmt::Transformer& initial, const nmt::ModelConfig& config) {
  nmt::Transformer model(config);
  model->to(initial->parameters().front().device());
  train::load_module_state(*model, train::module_state(*initial));
  return model;
}

/// A case as the training loop sees it.
class TrainingCase : public train::Task {
 public:
  TrainingCase(nmt::Transformer model, const NmtCase& content) : model_(std::move(model)), case_(content) {
    if (!content.recurring.empty()) graphed_loss_.emplace(model_, /*label_smoothing=*/0.0);
  }

  torch::nn::Module& model() override { return *model_; }
  std::string score_name() const override { return ""; }
  int64_t begin_epoch(int64_t) override { return static_cast<int64_t>(case_.batches.size()); }
  train::Validation validate() override { return {}; }
  train::Value describe() const override { return {}; }

  train::BatchLoss forward(int64_t index) override {
    const nmt::Batch& batch = case_.batches.at(static_cast<std::size_t>(index));
    train::BatchLoss loss;
    loss.loss_sum = graphed_loss_ ? (*graphed_loss_)(case_.recurring.at(static_cast<std::size_t>(index)))
                                  : model_->loss(batch, /*label_smoothing=*/0.0);
    loss.count = batch.target_tokens;
    return loss;
  }

 private:
  nmt::Transformer model_;
  const NmtCase& case_;
  std::optional<nmt::GraphedLoss> graphed_loss_;
};

train::TrainerOptions trainer_options(at::Device device, const NmtSettings& settings) {
  train::TrainerOptions options;
  options.device = device;
  options.precision = train::parse_precision(settings.precision);
  options.optimizer.kind = train::OptimizerOptions::Kind::kAdamW;
  return options;
}

/// What trains lives as long as the contender.
class Training {
 public:
  Training(nmt::Transformer model, const NmtCase& content, const NmtSettings& settings)
      : options_(trainer_options(model->parameters().front().device(), settings)),
        task_(model, content),
        updater_(task_, options_),
        lr_(settings.lr) {}

  void run() {
    task_.model().train();
    train::EpochTotals totals;
    const int64_t batches = task_.begin_epoch(1);
    for (int64_t batch = 0; batch < batches; ++batch) {
      updater_.apply(lr_, updater_.accumulate(batch, batch + 1), totals);
    }
  }

 private:
  train::TrainerOptions options_;
  TrainingCase task_;
  train::Updater updater_;
  double lr_;
};

std::vector<nmt::Hypothesis> translate(nmt::Transformer& model, const NmtCase& content, const NmtSettings& settings) {
  nmt::SearchOptions options;
  options.beam = settings.beam;
  options.max_length = max_length(content, settings);
  const train::AutocastGuard autocast(model->parameters().front().device().type(),
                                      train::parse_precision(settings.precision));
  std::vector<nmt::Hypothesis> all;
  for (const nmt::Batch& batch : content.batches) {
    for (nmt::NBest& found : nmt::search(model, batch.source, batch.source_lengths, options)) {
      all.push_back(std::move(found.front()));
    }
  }
  return all;
}

int64_t count_tokens(const std::vector<nmt::Hypothesis>& translations, const NmtSettings& settings) {
  int64_t tokens = 0;
  for (const nmt::Hypothesis& each : translations) {
    tokens += static_cast<int64_t>(each.ids.size()) + (settings.finishes ? 1 : 0);
  }
  return tokens;
}

double loss_of(nmt::Transformer model, const NmtCase& content, const NmtSettings& settings) {
  const at::NoGradGuard no_grad;
  const train::AutocastGuard autocast(model->parameters().front().device().type(),
                                      train::parse_precision(settings.precision));
  model->eval();
  double sum = 0.0;
  for (const nmt::Batch& batch : content.batches) sum += model->loss(batch, /*label_smoothing=*/0.0).item<double>();
  return sum;
}

void require_same_loss(double theirs, double ours, bool exact) {
  if (std::abs(theirs - ours) <= (exact ? kLossTolerance : kLossTolerance16) * std::abs(ours)) return;
  throw Error(format("its loss is %.6f, ours %.6f: it computes something else", theirs, ours));
}

/// The share of translations that are ours.
double compare(const nlohmann::json& theirs, const std::vector<nmt::Hypothesis>& ours) {
  int64_t same = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (theirs.at("ids").at(i).get<std::vector<int64_t>>() != ours[i].ids) continue;
    ++same;
    const double score = theirs.at("scores").at(i).get<double>();
    if (!(std::abs(score - ours[i].score) <= kScoreTolerance)) {
      throw Error(format("it scores translation %zu with %.6f, we with %.6f", i, score, ours[i].score));
    }
  }
  const double agreement = static_cast<double>(same) / static_cast<double>(ours.size());
  if (agreement < kLeastAgreement) throw Error(format("%.1f %% of its translations are ours", 100.0 * agreement));
  return agreement;
}

}  // namespace

Contender training_contender(const NmtCase& content, const nmt::Transformer& initial, const nmt::ModelConfig& config,
                             const NmtSettings& settings) {
  const auto training = std::make_shared<Training>(copy_of(initial, config), content, settings);
  return {config.attn_type, {{"train", [training] { training->run(); }}}};
}

Contender decoding_contender(const NmtCase& content, const nmt::Transformer& initial, const nmt::ModelConfig& config,
                             const NmtSettings& settings, std::shared_ptr<int64_t> tokens) {
  const auto run = [&content, settings, tokens = std::move(tokens), model = copy_of(initial, config)]() mutable {
    *tokens = count_tokens(translate(model, content, settings), settings);
  };
  return {config.attn_type, {{"decode", run}}};
}

Peer& LazyPeer::get() {
  if (!failure_.empty()) throw Error(failure_);
  if (peer_) return *peer_;
  try {
    peer_ = std::make_unique<Peer>(command_);
  } catch (const Error& error) {
    failure_ = error.what();
    throw;
  }
  return *peer_;
}

Contender training_peer(LazyPeer& peer, std::size_t index, const NmtCase& content, const nmt::Transformer& initial,
                        const NmtSettings& settings) {
  const auto run = [&, index, settings, checked = false]() mutable {
    if (!checked) {
      const nlohmann::json answer = peer.get().ask({{"do", "loss"}, {"case", index}});
      require_same_loss(answer.at("loss").get<double>(), loss_of(initial, content, settings),
                        settings.precision == "fp32");
    }
    checked = true;
    peer.get().ask({{"do", "train"}, {"case", index}});
  };
  return {"nn.Transformer", {{"train", run}}};
}

Contender decoding_peer(LazyPeer& peer, std::size_t index, const NmtCase& content, const nmt::Transformer& initial,
                        const NmtSettings& settings, std::shared_ptr<PeerTranslations> result) {
  const auto run = [&, index, settings, result = std::move(result), checked = false]() mutable {
    if (!checked) {
      nmt::Transformer model = initial;
      const nlohmann::json answer = peer.get().ask({{"do", "translations"}, {"case", index}});
      result->agreement = compare(answer, translate(model, content, settings));
    }
    checked = true;
    result->tokens = peer.get().ask({{"do", "decode"}, {"case", index}}).at("tokens").get<int64_t>();
  };
  return {"CTranslate2", {{"decode", run}}};
}

}  // namespace strobe::bench
