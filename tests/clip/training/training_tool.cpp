// Trains for training_test.py, which holds it against the original's training, in one process or, where the environment
// says so, in several:
//   training_tool REQUEST ANSWER, both checkpoints; the log goes to standard error
// A request is {"vision", "text": what differs from a small tower, "state", "options": some of TrainingOptions,
// "batches":
// [{"images", "texts"}] of all processes in turn, "valid" likewise, "dropout", "epochs", "gpu": whether each process
// takes one, "never_waits": whether an update that waits for it is an error}; the answer of rank 0
// {"losses", "lrs", "state", "optimizer"}.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#ifdef STROBE_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "clip/checkpoint/checkpoint.h"
#include "clip/checkpoint/load.h"
#include "clip/training/build.h"
#include "clip/training/decay.h"
#include "clip/training/report.h"
#include "clip/training/run_files.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace {

using namespace strobe;
using namespace strobe::clip;
using train::Dict;
using train::List;

template <typename T, typename Read>
void set_if_given(const Dict& from, const char* key, T& value, const Read& read) {
  if (const train::Value* found = from.find(key)) value = static_cast<T>(read(*found));
}
void set_if_given(const Dict& from, const char* key, int64_t& value) {
  set_if_given(from, key, value, [](const train::Value& v) { return v.as_int(); });
}
void set_if_given(const Dict& from, const char* key, bool& value) {
  set_if_given(from, key, value, [](const train::Value& v) { return v.as_bool(); });
}
void set_if_given(const Dict& from, const char* key, double& value) {
  set_if_given(from, key, value, [](const train::Value& v) { return v.as_double(); });
}
template <typename Text>
void set_text_if_given(const Dict& from, const char* key, Text& value) {
  set_if_given(from, key, value, [](const train::Value& v) { return v.as_string(); });
}

VisionConfig vision_of(const Dict& given) {
  VisionConfig config{.name = "", .embed_dim = 16, .image_resolution = 32, .layers = {2}, .width = 64};
  set_if_given(given, "patch_size", config.patch_size);
  set_if_given(given, "image_resolution", config.image_resolution);
  set_if_given(given, "width", config.width);
  if (const train::Value* layers = given.find("layers")) {
    config.layers.clear();
    for (const train::Value& count : layers->as_list()) config.layers.push_back(count.as_int());
  }
  return config;
}

TextConfig text_of(double dropout) {
  return {.name = "",
          .vocab_size = 200,
          .hidden_size = 64,
          .num_hidden_layers = 2,
          .num_attention_heads = 1,
          .intermediate_size = 128,
          .hidden_dropout = dropout,
          .attention_dropout = dropout};
}

TrainingOptions options_of(const Dict& given) {
  TrainingOptions o;
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.98, eps = 1e-6;
  set_if_given(given, "lr", lr);
  set_if_given(given, "beta1", beta1);
  set_if_given(given, "beta2", beta2);
  set_if_given(given, "eps", eps);
  o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps;
  o.precision = "fp32";
  o.attn_type = "dotscale";
  o.log_interval = 1;
  o.logs = "none";
  o.report_training_batch_acc = true;
  set_text_if_given(given, "precision", o.precision);
  set_text_if_given(given, "attn_type", o.attn_type);
  set_if_given(given, "wd", o.wd);
  set_if_given(given, "warmup", o.warmup);
  set_if_given(given, "batch_size", o.batch_size);
  set_if_given(given, "accum_freq", o.accum_freq);
  set_if_given(given, "max_epochs", o.max_epochs);
  set_if_given(given, "max_steps", o.max_steps);
  set_if_given(given, "gather_with_grad", o.gather_with_grad);
  set_if_given(given, "local_loss", o.local_loss);
  set_if_given(given, "skip_aggregate", o.skip_aggregate);
  set_if_given(given, "use_bn_sync", o.use_bn_sync);
  set_if_given(given, "freeze_vision", o.freeze_vision);
  set_if_given(given, "mask_ratio", o.mask_ratio);
  set_if_given(given, "kd_loss_weight", o.kd_loss_weight);
  return o;
}

/// Batches of a request; those of rank r are r, r + size, ...
class GivenBatches : public BatchSource {
 public:
  GivenBatches(const List& batches, const train::Communicator& ranks, at::ScalarType dtype, at::Device device)
      : batches_(batches), rank_(ranks.rank()), size_(ranks.size()), dtype_(dtype), device_(device) {}

  int64_t begin_epoch(int64_t) override { return static_cast<int64_t>(batches_.size()) / size_; }
  Batch batch(int64_t index) override {
    const Dict& given = batches_.at(static_cast<std::size_t>(index * size_ + rank_)).as_dict();
    Batch batch;
    const at::Tensor texts = given.at("texts").as_tensor();
    batch.images = given.at("images").as_tensor().to(dtype_).to(device_, /*non_blocking=*/true);
    batch.texts = texts.to(device_, /*non_blocking=*/true);
    batch.lengths = texts.ne(0).sum(1);
    for (int64_t i = 0; i < batch.texts.size(0); ++i) {
      batch.samples.push_back((index * size_ + rank_) * batch.texts.size(0) + i);
    }
    return batch;
  }
  int64_t samples_per_epoch() const override {
    return static_cast<int64_t>(batches_.size()) * batches_.front().as_dict().at("texts").as_tensor().size(0);
  }
  int64_t skipped() const override { return 0; }

 private:
  const List& batches_;
  int64_t rank_, size_;
  at::ScalarType dtype_;
  at::Device device_;
};

/// Whether operators of ATen that wait for the GPU throw.
void forbid_waiting(bool on) {
#ifdef STROBE_CUDA
  c10::cuda::warning_state().set_sync_debug_mode(on ? c10::cuda::SyncDebugMode::L_ERROR
                                                    : c10::cuda::SyncDebugMode::L_DISABLED);
#else
  if (on) throw Error("never_waits: this build knows no GPU");
#endif
}

/// Keeps the loss and the rate of every update.
class KeepingReport : public ClipReport {
 public:
  /// `never_waits`: no update from the second on, which is the first with its buckets and workspaces.
  KeepingReport(const TrainingOptions& options, const train::TrainerOptions& trainer, const ClipTask& task,
                train::Logger& logger, bool never_waits)
      : ClipReport(options, trainer, task, logger), task_(task), never_waits_(never_waits) {}
  bool wants_updates(const train::RunState&) const override {
    if (never_waits_) forbid_waiting(false);  // what reads the loss does wait
    return true;
  }
  void updates(const train::RunState& state, int64_t batches) override {
    ClipReport::updates(state, batches);
    losses.emplace_back(task_.last_update().loss.item<double>());
    lrs.emplace_back(train::learning_rate(options().schedule, state.update));
    if (never_waits_ && state.update > 1 && state.update < options().schedule.total_updates) forbid_waiting(true);
  }
  List losses, lrs;

 private:
  const ClipTask& task_;
  bool never_waits_;
};

class KeepingFiles : public train::RunFiles {
 public:
  train::RunState resume(train::Updater&) override { return {}; }
  void save(train::RunState&, train::Occasion, const train::Updater& updater) override {
    optimizer = updater.optimizer_state();
  }
  std::filesystem::path last() const override { return {}; }
  Dict optimizer;
};

Clip model_of(const Dict& request, const TrainingOptions& options, at::Device device,
              const std::shared_ptr<train::Communicator>& ranks) {
  double dropout = 0.0;
  set_if_given(request, "dropout", dropout);
  Clip model(vision_of(request.at("vision").as_dict()), text_of(dropout), ClipOptions{.attn_type = options.attn_type});
  const Dict& state = request.at("state").as_dict();
  model->to(state.at("text_projection").as_tensor().scalar_type());
  train::load_module_state(*model, state);
  model->to(device);
  if (options.freeze_vision) model->freeze_vision();
  if (options.use_bn_sync && ranks->size() > 1) {
    model->synchronise_batch_norms([ranks](const at::Tensor& row) { return ranks->all_gather(row); });
  }
  return model;
}

Clip teacher_of(const Dict& request) {
  const train::Value* given = request.find("teacher");
  if (given == nullptr) return nullptr;
  Clip teacher(vision_of(given->as_dict().at("vision").as_dict()), text_of(0.0), ClipOptions());
  const Dict& state = given->as_dict().at("state").as_dict();
  teacher->to(state.at("text_projection").as_tensor().scalar_type());
  train::load_module_state(*teacher, state);
  teacher->eval();
  return teacher;
}

Dict run(const Dict& request, at::Device device, const std::shared_ptr<train::Communicator>& ranks) {
  const TrainingOptions options = options_of(request.at("options").as_dict());
  bool never_waits = false;
  set_if_given(request, "never_waits", never_waits);
  Clip model = model_of(request, options, device, ranks);
  const at::ScalarType dtype = request.at("state").as_dict().at("text_projection").as_tensor().scalar_type();
  const std::string line = "%Y-%m-%d,%H:%M:%S | %* | Rank 0 | %v";
  const auto logger = ranks->is_root() ? std::make_shared<train::Logger>("", train::Logger::Mode::kAppend, true,
                                                                         train::Logger::Style{line, line, true, false})
                                       : std::make_shared<train::Logger>();
  ClipTask::Parts parts{model,
                        teacher_of(request),
                        std::make_unique<GivenBatches>(request.at("batches").as_list(), *ranks, dtype, device),
                        {}};
  if (const train::Value* valid = request.find("valid")) {
    auto batches = std::make_unique<GivenBatches>(valid->as_list(), *ranks, dtype, device);
    PairIds ids;
    for (int64_t i = 0; i < batches->samples_per_epoch(); ++i) {
      ids.images.push_back(i);
      ids.texts.push_back(i);
    }
    ids.num_images = ids.num_texts = batches->samples_per_epoch();
    parts.validator.emplace(std::move(batches), ids, logger);
  }
  TaskOptions task_options;
  task_options.loss = {!options.skip_aggregate, options.gather_with_grad, options.local_loss, true,
                       options.kd_loss_weight};
  task_options.mask_ratio = options.mask_ratio;
  task_options.accumulation = options.accum_freq;
  const bool validates = parts.validator.has_value();
  ClipTask task(std::move(parts), task_options, device, ranks);
  task.begin_epoch(1);
  train::TrainerOptions trainer = trainer_options(options, device, ranks, task.updates_per_epoch());
  trainer.validate_every = validates ? 1 : 0;
  KeepingFiles files;
  KeepingReport report(options, trainer, task, *logger, never_waits);
  train::train(task, trainer, files, report);
  Dict answer;
  answer["losses"] = std::move(report.losses);
  answer["lrs"] = std::move(report.lrs);
  answer["state"] = train::module_state(*model);
  answer["optimizer"] = std::move(files.optimizer);
  return answer;
}

/// {"vision": the name of a tower, "text_layers"}: the answer has the names of both groups. The layers are narrow.
Dict groups_of(const Dict& request) {
  VisionConfig vision = vision_config(request.at("vision").as_string());
  vision.width = vision.is_vit() ? vision.head_width : 8;
  TextConfig text = text_of(0.0);
  text.num_hidden_layers = request.at("text_layers").as_int();
  const Clip model(vision, text, ClipOptions());
  List groups;
  for (const train::ParameterGroup& group : decay_groups(*model, 0.2)) {
    List names;
    for (const auto& [name, parameter] : group.parameters) names.emplace_back(name);
    groups.emplace_back(std::move(names));
  }
  Dict answer;
  answer["groups"] = std::move(groups);
  return answer;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    at::set_num_threads(1);
    const Dict request = train::load_checkpoint(argv[1]);
    if (!request.contains("batches")) {
      train::save_checkpoint(argv[2], groups_of(request));
      return 0;
    }
    const train::World world = train::world_from_environment();
    at::globalContext().setAllowTF32CuDNN(false);
    bool gpu = false;
    set_if_given(request, "gpu", gpu);
    const at::Device device = gpu ? at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(world.local_rank)) : at::kCPU;
    return train::run_in_world(world, device, [&](const std::shared_ptr<train::Communicator>& ranks) {
      const Dict answer = run(request, device, ranks);
      if (ranks->is_root()) train::save_checkpoint(argv[2], answer);
      return 0;
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
