#include "bench/clip.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "bench/clip_step.h"
#include "bench/memory.h"
#include "bench/peer.h"
#include "bench/report.h"
#include "bench/temporary_folder.h"
#include "strobe/types.h"
#include "train/checkpoint.h"
#include "train/device.h"

namespace strobe::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kWarmups = 3;  // the libraries choose their algorithms in the first
constexpr double kKibPerMib = 1024.0, kKibPerGib = 1024.0 * 1024.0;
constexpr double kFp32Tolerance = 1e-4, kLowTolerance = 2e-2;  // of a peer's loss, relative

using Measured = std::function<void(const ClipRow&)>;

struct PeerProgram {
  const char* name;
  const char* script;
};
constexpr PeerProgram kPeers[] = {{"cn_clip", "cn_clip_step.py"},
                                  {"cn_clip_flash", "cn_clip_flash_step.py"},
                                  {"cn_clip_materialised", "cn_clip_materialised_step.py"},
                                  {"transformers", "chinese_clip_step.py"},
                                  {"transformers_strobe", "chinese_clip_strobe_step.py"}};

/// One size: its batch, the file for the peers.
class SizeBench {
 public:
  SizeBench(const ClipBenchOptions& options, ClipSize size) : options_(options), size_(std::move(size)) {
    if (options.batch > 0) size_.batch = options.batch;
  }

  /// One row, or with several processes two.
  void ours(const std::string& attn_type, const Measured& measured) {
    const auto& ranks = options_.ranks;
    std::optional<PeakMemory> peak(options_.device);
    const ClipBatch batch = make_batch();
    const clip::Clip model = make_clip(size_, attn_type, options_.seed, options_.device);
    if (ranks->is_root()) {
      ClipRow row = make_row(attn_type, 1);
      ContenderResult result;
      guarded(result, options_.device, [&] { fill(row, peak, model, batch, std::make_shared<train::Communicator>()); });
      row.status = result.status;
      row.why = result.why;
      measured(row);
    }
    if (ranks->size() == 1) return;
    ranks->max(0);  // the others wait here
    ClipRow row = make_row(attn_type, ranks->size());
    fill(row, peak, model, batch, ranks);
    measured(row);
  }

  ClipRow peer(const PeerProgram& program, nlohmann::ordered_json& versions) {
    ClipRow row = make_row(program.name, 1);
    ContenderResult result;
    guarded(result, options_.device, [&] {
      Peer peer({options_.peer_python, std::string(STROBE_BENCH_PEERS) + "/" + program.script, workload_file().string(),
                 "--threads", std::to_string(at::get_num_threads()), "--device",
                 options_.device.is_cpu() ? "cpu" : "cuda"});
      versions.update(peer.versions());
      row.loss = peer.ask({{"do", "loss"}}).at("loss").get<double>();
      require_our_loss(*row.loss);
      const nlohmann::json answer = peer.ask(
          {{"do", "measure"}, {"warmups", kWarmups}, {"repetitions", options_.repetitions}, {"steps", options_.steps}});
      row.ms = answer.at("ms").get<std::vector<double>>();
      if (!answer.at("peak_gib").is_null()) row.peak_gib = answer.at("peak_gib").get<double>();
    });
    row.status = result.status;
    row.why = result.why;
    return row;
  }

 private:
  ClipRow make_row(const std::string& name, int64_t gpus) const {
    ClipRow row;
    row.size = size_.name;
    row.batch = size_.batch;
    row.gpus = gpus;
    row.attn_type = name;
    return row;
  }

  ClipBatch make_batch() const {
    return clip_batch(size_, options_.seed + static_cast<uint64_t>(options_.ranks->rank()), options_.device);
  }

  void fill(ClipRow& row, std::optional<PeakMemory>& peak, const clip::Clip& model, const ClipBatch& batch,
            const std::shared_ptr<train::Communicator>& ranks) {
    ClipStep step(model, batch, options_.settings, options_.device, ranks);
    if (!options_.peer_python.empty()) row.loss = step.loss();
    if (!loss_) loss_ = row.loss;
    for (int64_t i = 0; i < kWarmups; ++i) step.run();
    train::synchronize(options_.device);
    peak->reset();
    row.ms = time(step, *ranks);
    row.peak_gib = static_cast<double>(ranks->max(std::llround(peak->mib() * kKibPerMib))) / kKibPerGib;
    if (!options_.profile || ranks->size() < options_.ranks->size()) return;
    peak.reset();  // it and the profiler take the same hook
    row.profile = profile_steps([&] { step.run(); }, options_.steps, options_.device);
  }

  /// Steps in a row without waiting: the host may run ahead, as it does in training.
  std::vector<double> time(ClipStep& step, train::Communicator& ranks) const {
    std::vector<double> ms;
    for (int64_t i = 0; i < options_.repetitions; ++i) {
      ranks.max(0);  // all begin together
      const Clock::time_point start = Clock::now();
      for (int64_t j = 0; j < options_.steps; ++j) step.run();
      train::synchronize(options_.device);
      const std::chrono::nanoseconds elapsed = Clock::now() - start;
      ms.push_back(static_cast<double>(ranks.max(elapsed.count())) / 1e6 / static_cast<double>(options_.steps));
    }
    return ms;
  }

  const fs::path& workload_file() {
    if (file_.empty()) {
      file_ = folder_.path() / "workload.pt";
      const clip::Clip model = make_clip(size_, options_.attn_types.front(), options_.seed, at::kCPU);
      write_clip_workload(file_, size_, make_batch(), train::module_state(*model), options_.settings);
    }
    return file_;
  }

  void require_our_loss(double theirs) const {
    if (!loss_) throw Error("our own loss could not be computed");
    const bool exact = options_.settings.precision == train::Precision::kFp32;
    if (std::abs(theirs - *loss_) <= (exact ? kFp32Tolerance : kLowTolerance) * std::abs(*loss_)) return;
    throw Error(format("its loss is %.6f, ours %.6f: it computes something else", theirs, *loss_));
  }

  const ClipBenchOptions& options_;
  ClipSize size_;
  std::optional<double> loss_;
  TemporaryFolder folder_;
  fs::path file_;
};

}  // namespace

std::vector<std::string> peer_names() {
  std::vector<std::string> names;
  for (const PeerProgram& program : kPeers) names.emplace_back(program.name);
  return names;
}

nlohmann::ordered_json bench_clip(const ClipBenchOptions& options, const Measured& measured) {
  if (!options.peer_python.empty() && options.ranks->size() > 1) {
    throw Error("bench clip: peers: expected one process, found " + std::to_string(options.ranks->size()));
  }
  nlohmann::ordered_json versions = nlohmann::ordered_json::object();
  for (const std::string& name : options.sizes) {
    SizeBench bench(options, clip_size(name));
    for (const std::string& attn_type : options.attn_types) {
      bench.ours(attn_type, measured);
      train::release_cached_memory(options.device);
    }
    if (options.peer_python.empty()) continue;
    for (const PeerProgram& program : kPeers) {
      const bool wanted = std::find(options.peers.begin(), options.peers.end(), program.name) != options.peers.end();
      if (wanted) measured(bench.peer(program, versions));
    }
  }
  return versions;
}

}  // namespace strobe::bench
