// Writes what transformer_parity_test.py recomputes with Python's torch.nn.Transformer:
//   transformer_parity_tool ATTN_TYPE FILE
// FILE becomes a checkpoint that torch.load reads: configuration, weights, batch, logits, losses and all gradients.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "nmt/vocabulary.h"
#include "tests/nmt/model_fixture.h"
#include "train/checkpoint.h"

namespace {

using namespace strobe;
using namespace strobe::nmt;

constexpr double kSmoothing = 0.1;

train::Dict tensors_of(const Batch& batch) {
  train::Dict dict;
  dict["source"] = batch.source;
  dict["source_lengths"] = batch.source_lengths;
  dict["target_in"] = batch.target_in;
  dict["target_out"] = batch.target_out;
  dict["target_lengths"] = batch.target_lengths;
  return dict;
}

void write(const std::string& attn_type, const std::filesystem::path& file) {
  const ModelConfig config = small_config(attn_type, /*dropout=*/0.0);
  Transformer model = seeded_model(config);
  const Batch batch = batch_of(random_pairs(7, config, 30, 40));
  const at::Tensor loss = model->loss(batch, kSmoothing);
  loss.backward();
  train::Dict content, gradients;
  for (const auto& item : model->named_parameters()) gradients[item.key()] = item.value().grad();
  content["config"] = to_dict(config);
  content["model"] = train::module_state(*model);
  content["batch"] = tensors_of(batch);
  content["label_smoothing"] = kSmoothing;
  content["logits"] = model->forward(batch).detach();
  content["loss"] = loss.detach();
  content["plain_loss"] = model->loss(batch, 0.0).detach();
  content["gradients"] = gradients;
  train::save_checkpoint(file, content);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    write(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
