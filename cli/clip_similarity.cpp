// strobe clip similarity: which text says what a picture shows.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "cli/clip_model_options.h"
#include "cli/commands.h"
#include "clip/image/transform.h"
#include "strobe/types.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::vector<std::string> images, texts;
  ClipModelOptions model;
};

/// uint8 [n, R, R, 3]
at::Tensor read_images(const std::vector<std::string>& files, int64_t resolution) {
  at::Tensor pixels = at::empty({static_cast<int64_t>(files.size()), resolution, resolution, 3}, at::kByte);
  uint8_t* out = pixels.mutable_data_ptr<uint8_t>();
  for (const std::string& file : files) {
    std::ifstream stream(file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    if (!stream) throw Error("--image " + file + ": cannot be read");
    try {
      clip::transform_image(clip::decode_image(bytes), static_cast<int>(resolution), out);
    } catch (const Error& error) {
      throw Error("--image " + file + ": " + error.what());
    }
    out += resolution * resolution * 3;
  }
  return pixels;
}

void print(const Arguments& a, const at::Tensor& cosines, const at::Tensor& probabilities) {
  for (std::size_t i = 0; i < a.images.size(); ++i) {
    std::cout << fmt::format("{}\n", a.images[i]);
    const std::size_t row = i * a.texts.size();
    for (std::size_t j = 0; j < a.texts.size(); ++j) {
      std::cout << fmt::format("  {:.4f}  cosine {:.4f}  {}\n", probabilities.const_data_ptr<float>()[row + j],
                               cosines.const_data_ptr<float>()[row + j], a.texts[j]);
    }
  }
}

void run(const Arguments& a) {
  const at::NoGradGuard no_gradients;
  clip::Embedder embedder = a.model.load();
  std::vector<std::string> captions;
  for (const std::string& text : a.texts) captions.push_back(clip::normalize_caption(text));
  const at::Tensor texts = embedder.texts(a.model.tokenizer().tokenize(captions, a.model.context_length));
  const at::Tensor images = embedder.images(read_images(a.images, embedder.resolution()));
  const at::Tensor cosines = at::matmul(images, texts.t());
  const at::Tensor scale = embedder.model()->named_parameters()["logit_scale"].exp();
  print(a, cosines.cpu().contiguous(), at::softmax(scale * cosines, -1).cpu().contiguous());
}

}  // namespace

void add_clip_similarity(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "similarity", "How well each text fits each image: the probability among the texts, the cosine");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--image", a->images, "One or several")->type_name("FILE...")->required();
  command->add_option("--text", a->texts, "One or several")->type_name("TEXT...")->required();
  a->model.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
