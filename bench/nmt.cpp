#include "bench/nmt.h"

#include <ATen/Parallel.h>

#include <memory>
#include <utility>

#include "bench/nmt_contenders.h"
#include "bench/temporary_folder.h"
#include "nmt/checkpoint.h"
#include "strobe/types.h"
#include "train/device.h"

namespace strobe::bench {
namespace {

constexpr const char* kTrainingPeer = "nn.Transformer";
constexpr const char* kDecodingPeer = "CTranslate2";

StepProfile per_step(StepProfile profile, double steps) {
  for (double* ms :
       {&profile.attention, &profile.matrix, &profile.optimiser, &profile.pointwise, &profile.host, &profile.wall}) {
    *ms /= steps;
  }
  for (ProfiledKernel& kernel : profile.kernels) {
    kernel.ms /= steps;
    kernel.calls /= steps;
  }
  return profile;
}

/// All that the cases share.
class Bench {
 public:
  explicit Bench(const NmtBenchOptions& options) : options_(options), workload_(nmt_workload(options.workload)) {
    settings_.precision = train::precision_name(options.precision);
    settings_.beam = options.beam;
    settings_.finishes = !options.model.empty();
    model_ = initial_model();
    if (options.peer_python.empty()) return;
    const std::filesystem::path file = folder_.path() / "workload.pt";
    write_workload(file, workload_, model_, settings_);
    training_peer_.emplace(peer_command("nn_transformer.py", file));
    decoding_peer_.emplace(peer_command("ctranslate2_decoder.py", file));
  }

  std::vector<NmtRow> train(std::size_t index) {
    const NmtCase& content = workload_.train[index];
    std::vector<Contender> contenders;
    for (const nmt::ModelConfig& config : configs()) {
      contenders.push_back(training_contender(content, model_, config, settings_));
    }
    if (training_peer_) contenders.push_back(training_peer(*training_peer_, index, content, model_, settings_));
    std::vector<NmtRow> rows = measured(contenders, "train", content);
    for (NmtRow& row : rows) row.tokens = per_batch(content.target_tokens(), content);
    if (options_.profile) profile(contenders, content, rows);
    return rows;
  }

  std::vector<NmtRow> decode(std::size_t index) {
    const NmtCase& content = workload_.decode[index];
    std::vector<Contender> contenders;
    const auto tokens = std::make_shared<int64_t>(0);
    const auto theirs = std::make_shared<PeerTranslations>();
    for (const nmt::ModelConfig& config : configs()) {
      contenders.push_back(decoding_contender(content, model_, config, settings_, tokens));
    }
    if (decoding_peer_) {
      contenders.push_back(decoding_peer(*decoding_peer_, index, content, model_, settings_, theirs));
    }
    std::vector<NmtRow> rows = measured(contenders, "decode", content);
    for (NmtRow& row : rows) {
      row.beam = options_.beam;
      row.tokens = per_batch(row.attn_type == kDecodingPeer ? theirs->tokens : *tokens, content);
      if (row.attn_type == kDecodingPeer) row.agreement = theirs->agreement;
    }
    return rows;
  }

  const NmtWorkload& workload() const { return workload_; }

  nlohmann::ordered_json peer_versions() const {
    nlohmann::ordered_json versions = nlohmann::ordered_json::object();
    for (const std::optional<LazyPeer>* peer : {&training_peer_, &decoding_peer_}) {
      if (*peer) versions.update((*peer)->versions());
    }
    return versions;
  }

 private:
  nmt::Transformer initial_model() {
    const at::Device device = options_.workload.device;
    if (options_.model.empty()) {
      train::seed_generators(device, options_.workload.seed);
      nmt::Transformer model(workload_.model);
      never_finish(model);
      model->to(device);
      return model;
    }
    nmt::Transformer model = nmt::load_translation_model(options_.model, device).model;
    const nmt::ModelConfig& config = model->config();
    if (config.source_vocabulary != workload_.model.source_vocabulary ||
        config.target_vocabulary != workload_.model.target_vocabulary) {
      throw Error("bench nmt: " + options_.model.string() + ": its vocabularies are not the corpus's");
    }
    workload_.model = config;
    return model;
  }

  std::vector<std::string> peer_command(const std::string& script, const std::filesystem::path& file) const {
    const at::Device device = options_.workload.device;
    return {options_.peer_python,
            std::string(STROBE_BENCH_PEERS) + "/" + script,
            file.string(),
            "--threads",
            std::to_string(at::get_num_threads()),
            "--device",
            device.is_cpu() ? "cpu" : "cuda"};
  }

  std::vector<nmt::ModelConfig> configs() const {
    std::vector<nmt::ModelConfig> result(options_.attn_types.size(), workload_.model);
    for (std::size_t i = 0; i < result.size(); ++i) result[i].attn_type = options_.attn_types[i];
    return result;
  }

  static double per_batch(int64_t total, const NmtCase& content) {
    return static_cast<double>(total) / static_cast<double>(content.batches.size());
  }

  std::vector<NmtRow> measured(const std::vector<Contender>& contenders, const std::string& task,
                               const NmtCase& content) const {
    std::vector<NmtRow> rows;
    for (const ContenderResult& result :
         measure(contenders, options_.budget, options_.workload.device, Timing::kWall)) {
      NmtRow row;
      row.task = task;
      row.attn_type = result.name;
      row.data = workload_.data;
      row.batch = content.batch;
      row.length = content.length;
      row.status = result.status;
      row.why = result.why;
      for (const PhaseResult& phase : result.phases) {
        for (const double ms : phase.ms) row.ms.push_back(ms / static_cast<double>(content.batches.size()));
        if (result.name != kTrainingPeer && result.name != kDecodingPeer) row.peak_mib = phase.peak_mib;
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

  void profile(const std::vector<Contender>& contenders, const NmtCase& content, std::vector<NmtRow>& rows) const {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].status != ContenderResult::Status::kMeasured || rows[i].attn_type == kTrainingPeer) continue;
      const StepProfile pass = profile_steps(contenders[i].phases.front().run, /*steps=*/1, options_.workload.device);
      rows[i].profile = per_step(pass, static_cast<double>(content.batches.size()));
    }
  }

  const NmtBenchOptions& options_;
  NmtWorkload workload_;
  NmtSettings settings_;
  nmt::Transformer model_ = nullptr;
  TemporaryFolder folder_;
  std::optional<LazyPeer> training_peer_, decoding_peer_;
};

}  // namespace

NmtReport bench_nmt(const NmtBenchOptions& options, const std::function<void(const std::vector<NmtRow>&)>& done) {
  Bench bench(options);
  for (const std::string& task : options.tasks) {
    for (std::size_t i = 0; i < bench.workload().train.size(); ++i) {
      done(task == "train" ? bench.train(i) : bench.decode(i));
    }
  }
  return {bench.workload().model, bench.peer_versions()};
}

}  // namespace strobe::bench
