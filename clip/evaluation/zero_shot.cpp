#include "clip/evaluation/zero_shot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <cstdlib>
#include <iterator>
#include <utility>

#include "clip/evaluation/labelled_loader.h"
#include "clip/evaluation/python_json.h"
#include "clip/evaluation/templates.h"

namespace strobe::clip {
namespace {

constexpr double kScale = 100.0;  // of the cosines, as CLIP's after training

int64_t num_parameters(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

/// Python's repr(round(value, 6)).
void append_rounded(std::string& out, float value) {
  append_float(out, std::strtod(fmt::format("{:.6f}", static_cast<double>(value)).c_str(), nullptr));
}

void append_row(std::string& out, const float* row, int64_t count) {
  out += '[';
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) out += ", ";
    append_rounded(out, row[i]);
  }
  out += ']';
}

}  // namespace

at::Tensor zero_shot_classifier(Embedder& embedder, const BertTokenizer& tokenizer,
                                const std::vector<std::string>& class_names, const std::vector<std::string>& templates,
                                int64_t context_length, const OnProgress& on_progress) {
  std::vector<at::Tensor> weights;
  for (const std::string& name : class_names) {
    std::vector<std::string> texts;
    for (const std::string& text : templates) texts.push_back(normalize_caption(fill_template(text, name)));
    const at::Tensor mean = embedder.texts(tokenizer.tokenize(texts, context_length)).mean(0);
    weights.push_back(mean / at::linalg_vector_norm(mean));
    on_progress(static_cast<int64_t>(weights.size()), static_cast<int64_t>(class_names.size()));
  }
  return at::stack(weights, 1);
}

double ZeroShotResult::top1() const {
  const int64_t read = probabilities.size(0) - skipped;
  return read > 0 ? static_cast<double>(correct) / static_cast<double>(read) : 0.0;
}

ZeroShotResult classify(Embedder& embedder, const ImageFolder& folder, const at::Tensor& classifier,
                        const ZeroShotOptions& options, const OnSkip& on_skip, const OnProgress& on_progress) {
  const at::NoGradGuard no_gradients;
  const auto total = static_cast<int64_t>(folder.images.size());
  ZeroShotResult result{at::empty({total, classifier.size(1)}, at::kFloat)};
  LabelledImageLoader loader(folder, {static_cast<int>(embedder.resolution()), options.batch_size, options.workers});
  int64_t row = 0;
  while (std::optional<LabelledBatch> batch = loader.next()) {
    const at::Tensor logits = at::matmul(kScale * embedder.images(batch->images), classifier);
    const at::Tensor probabilities = at::softmax(logits, -1).cpu();
    const at::Tensor best = probabilities.argmax(-1);
    for (std::size_t i = 0; i < batch->files.size(); ++i) {
      const auto at_row = static_cast<int64_t>(i);
      if (batch->errors[i].empty()) {
        result.correct += best.const_data_ptr<int64_t>()[i] == batch->labels[i];
        continue;
      }
      probabilities.select(0, at_row).fill_(1.0 / static_cast<double>(classifier.size(1)));
      ++result.skipped;
      on_skip(batch->files[i].file.string(), batch->errors[i]);
    }
    result.probabilities.narrow(0, row, probabilities.size(0)).copy_(probabilities);
    row += probabilities.size(0);
    on_progress(row, total);
  }
  return result;
}

std::string elevater_json(const Clip& model, const std::string& vision_model, const std::string& dataset,
                          const at::Tensor& probabilities) {
  std::string out = R"({"model_name": )";
  append_string(out, "CN-CLIP-" + vision_model);
  out += R"(, "dataset_name": )";
  append_string(out, dataset);
  const int64_t all = num_parameters(*model);
  const int64_t visual = num_parameters(*model->named_children()["visual"]);
  fmt::format_to(std::back_inserter(out),
                 R"(, "num_trainable_params": 0, "num_params": {}, "num_visual_params": {}, "num_backbone_params": {})"
                 R"(, "n_shot": 0, "rnd_seeds": [123], "predictions": [[)",
                 all, visual, all);
  const at::Tensor rows = probabilities.contiguous();
  for (int64_t i = 0; i < rows.size(0); ++i) {
    if (i > 0) out += ", ";
    append_row(out, rows.const_data_ptr<float>() + i * rows.size(1), rows.size(1));
  }
  return out += "]]}";
}

}  // namespace strobe::clip
