// Classification by what texts say (Radford et al. 2021, section 3.1).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "clip/data/loader.h"
#include "clip/evaluation/embedder.h"
#include "clip/evaluation/extract.h"
#include "clip/evaluation/image_folder.h"
#include "clip/text/tokenizer.h"

namespace strobe::clip {

/// fp32 [embed_dim, classes] on the embedder's device: of each class the mean of the features of its filled templates,
/// brought back to length 1.
at::Tensor zero_shot_classifier(Embedder& embedder, const BertTokenizer& tokenizer,
                                const std::vector<std::string>& class_names, const std::vector<std::string>& templates,
                                int64_t context_length, const OnProgress& on_progress);

struct ZeroShotResult {
  at::Tensor probabilities;  // fp32 [images, classes] on the CPU; of an image that could not be read all the same
  int64_t correct = 0;
  int64_t skipped = 0;  // images that could not be read

  double top1() const;  // of the images that could be read
};

struct ZeroShotOptions {
  int64_t batch_size = 64;
  int workers = 4;
};

ZeroShotResult classify(Embedder& embedder, const ImageFolder& folder, const at::Tensor& classifier,
                        const ZeroShotOptions& options, const OnSkip& on_skip, const OnProgress& on_progress);

/// What the original writes for the benchmark ELEVATER (Li et al. 2022, arXiv 2204.08790), byte for byte: numbers with
/// six decimals. `dataset` and `vision_model` are names.
std::string elevater_json(const Clip& model, const std::string& vision_model, const std::string& dataset,
                          const at::Tensor& probabilities);

}  // namespace strobe::clip
