#include "bench/nmt_workload.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "bench/temporary_folder.h"
#include "nmt/dataset.h"
#include "nmt/prepare.h"
#include "nmt/recurring_batch.h"
#include "train/checkpoint.h"

namespace strobe::bench {
namespace {

namespace fs = std::filesystem;
using Indices = std::vector<int64_t>;

constexpr int64_t kSyntheticBatches = 2;
constexpr int64_t kSyntheticBatchesOfGpu = 8;  // updates in a row, between which nobody waits for the device
constexpr int64_t kPositions = 1024;           // that the peers get
constexpr int64_t kFirstOrdinary = 4;          // the first id that is a piece of text

NmtCase make_case(const std::vector<nmt::EncodedPair>& pairs, std::vector<Indices> batches,
                  const NmtWorkloadOptions& options) {
  batches.resize(std::min(batches.size(), static_cast<std::size_t>(options.batches)));
  NmtCase result;
  result.batch = options.batch_size;
  int64_t sentences = 0;
  for (const Indices& indices : batches) {
    result.batches.push_back(nmt::make_batch(pairs, indices, options.device));
    if (options.graphs) result.recurring.push_back(nmt::make_recurring_batch(pairs, indices, options.device));
    sentences += static_cast<int64_t>(indices.size());
  }
  result.length = static_cast<double>(result.target_tokens()) / static_cast<double>(sentences);
  return result;
}

NmtWorkload corpus_workload(const NmtWorkloadOptions& options, const fs::path& data) {
  const nmt::Vocabularies vocabularies = nmt::load_vocabularies(data);
  const nmt::BatchLimits limits{.sentences = options.batch_size, .max_tokens = 0};
  const auto train = nmt::load_dataset(data, nmt::Part::kTrain, vocabularies).pairs;
  const auto test = nmt::load_dataset(data, nmt::Part::kTest, vocabularies).pairs;
  NmtWorkload workload{"corpus", options.model, {}, {}};
  workload.model.source_vocabulary = vocabularies.source.size();
  workload.model.target_vocabulary = vocabularies.target.size();
  workload.train.push_back(make_case(train, nmt::bucket_batches(train, limits, options.seed, /*epoch=*/1), options));
  workload.decode.push_back(make_case(test, nmt::sorted_batches(test, limits), options));
  return workload;
}

/// bos, length - 1 random pieces, eos: the decoder sees and predicts `length` tokens.
std::vector<int64_t> random_sentence(int64_t length, int64_t vocabulary, std::mt19937_64& engine) {
  std::uniform_int_distribution<int64_t> piece(kFirstOrdinary, vocabulary - 1);
  std::vector<int64_t> ids{nmt::kBosId};
  for (int64_t i = 1; i < length; ++i) ids.push_back(piece(engine));
  ids.push_back(nmt::kEosId);
  return ids;
}

/// Batches of neighbours.
std::vector<Indices> in_order(std::size_t sentences, std::size_t batch_size) {
  std::vector<Indices> batches;
  for (std::size_t begin = 0; begin < sentences; begin += batch_size) {
    Indices batch(std::min(batch_size, sentences - begin));
    std::iota(batch.begin(), batch.end(), static_cast<int64_t>(begin));
    batches.push_back(std::move(batch));
  }
  return batches;
}

int64_t synthetic_batches(at::Device device) { return device.is_cpu() ? kSyntheticBatches : kSyntheticBatchesOfGpu; }

NmtWorkload synthetic_workload(const NmtWorkloadOptions& options) {
  NmtWorkload workload{options.mixed ? "mixed" : "synthetic", options.model, {}, {}};
  std::mt19937_64 engine(options.seed);
  for (const int64_t length : options.lengths) {
    std::vector<nmt::EncodedPair> pairs;
    std::uniform_int_distribution<int64_t> any_length(2, length);
    for (int64_t i = 0; i < options.batch_size * synthetic_batches(options.device); ++i) {
      const int64_t tokens = options.mixed ? any_length(engine) : length;
      pairs.push_back({random_sentence(tokens - 1, options.model.source_vocabulary, engine),
                       random_sentence(tokens, options.model.target_vocabulary, engine)});
    }
    const auto batches = in_order(pairs.size(), static_cast<std::size_t>(options.batch_size));
    workload.train.push_back(make_case(pairs, batches, options));
    workload.decode.push_back(workload.train.back());
  }
  return workload;
}

train::Value to_value(const NmtCase& content, const NmtSettings& settings) {
  train::List batches;
  for (const nmt::Batch& batch : content.batches) {
    train::Dict dict;
    dict["source"] = batch.source;
    dict["source_lengths"] = batch.source_lengths;
    dict["target_in"] = batch.target_in;
    dict["target_out"] = batch.target_out;
    dict["target_lengths"] = batch.target_lengths;
    batches.emplace_back(std::move(dict));
  }
  train::Dict dict;
  dict["max_length"] = max_length(content, settings);
  dict["batches"] = std::move(batches);
  return dict;
}

train::Value to_value(const std::vector<NmtCase>& cases, const NmtSettings& settings) {
  train::List list;
  for (const NmtCase& content : cases) list.push_back(to_value(content, settings));
  return list;
}

}  // namespace

int64_t NmtCase::target_tokens() const {
  return std::accumulate(batches.begin(), batches.end(), int64_t{0},
                         [](int64_t sum, const nmt::Batch& batch) { return sum + batch.target_tokens; });
}

NmtWorkload nmt_workload(const NmtWorkloadOptions& options) {
  if (!options.lengths.empty()) return synthetic_workload(options);
  if (!options.data.empty()) return corpus_workload(options, options.data);
  const TemporaryFolder folder;
  nmt::PrepareOptions demo = nmt::demo_options();
  demo.data = folder.path();
  nmt::prepare(demo, [](const std::string&) {});
  return corpus_workload(options, folder.path());
}

void never_finish(nmt::Transformer& model) {
  constexpr double kImprobable = -1e4;
  const at::NoGradGuard no_grad;
  at::Tensor bias = model->named_parameters()["generator.bias"];
  for (const int64_t id : {nmt::kPadId, nmt::kBosId, nmt::kEosId}) bias[id].fill_(kImprobable);
}

int64_t max_length(const NmtCase& decode, const NmtSettings& settings) {
  return settings.finishes ? 0 : static_cast<int64_t>(std::ceil(decode.length));
}

void write_workload(const std::filesystem::path& file, const NmtWorkload& workload, const nmt::Transformer& model,
                    const NmtSettings& settings) {
  train::Dict content;
  content["config"] = nmt::to_dict(workload.model);
  content["model"] = train::module_state(*model);
  content["positions"] = nn::sinusoidal_positions(kPositions, workload.model.d_model);
  content["norm_eps"] = workload.model.layer().norm_eps;
  content["bos"] = nmt::kBosId;
  content["eos"] = nmt::kEosId;
  content["unk"] = nmt::kUnkId;
  content["precision"] = settings.precision;
  content["lr"] = settings.lr;
  content["beam"] = settings.beam;
  content["train"] = to_value(workload.train, settings);
  content["decode"] = to_value(workload.decode, settings);
  train::save_checkpoint(file, content);
}

}  // namespace strobe::bench
