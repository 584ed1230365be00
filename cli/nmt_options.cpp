#include "cli/nmt_options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "cli/options.h"
#include "strobe/types.h"

namespace strobe::cli {

void RunOptions::add_to(CLI::App& command) {
  command
      .add_option("--precision", precision,
                  "of forward and backward; auto: fp32 on the CPU, bf16 from sm_80 on, else fp16")
      ->check(one_of({"auto", "fp32", "bf16", "fp16"}))
      ->capture_default_str();
  add_device(command);
}

void RunOptions::add_device(CLI::App& command) {
  command.add_option("--device", device, "where to compute; auto: the GPU where there is one")
      ->check(one_of({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command.add_option("--threads", threads, "CPU threads; 0: all cores")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

at::Device RunOptions::start(const train::World& world) const {
  if (threads > 0) {
    at::set_num_threads(threads);
  } else if (world.size > 1) {
    at::set_num_threads(train::cores_of_rank(world));
  }
  const int gpus = at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (device == "cuda" && gpus == 0) throw Error("--device: expected a CUDA GPU that this build can use, found none");
  if (device == "cpu" || gpus == 0) return at::kCPU;
  if (world.local_rank >= gpus) {
    throw Error("--device: rank " + std::to_string(world.rank) + ": expected a GPU for each of " +
                std::to_string(world.local_size) + " processes of this machine, found " + std::to_string(gpus));
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(world.local_rank)};
}

train::Precision RunOptions::precision_on(at::Device device) const {
  if (precision != "auto") return train::parse_precision(precision);
  if (device.is_cpu()) return train::Precision::kFp32;
  // cuDNN has bf16 convolutions from compute capability 8.0 on: the answer to be had without CUDA's headers.
  const bool sm_80 = at::detail::getCUDAHooks().supportsBFloat16ConvolutionWithCuDNNv8();
  return sm_80 ? train::Precision::kBf16 : train::Precision::kFp16;
}

void add_search_options(CLI::App& command, nmt::SearchOptions& options) {
  command.add_option("--beam", options.beam, "hypotheses kept for each sentence; 1: greedy")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--max-length", options.max_length,
                  "most tokens of a translation, the end of sentence counted; 0: 60, or twice the source's tokens "
                  "where that is more")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--min-length", options.min_length, "fewest tokens of a translation, the end of sentence not counted")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--length-penalty", options.length_penalty,
                  "a: hypotheses compare by (log-probability - w tokens) / tokens^a, the end of sentence counted")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--word-penalty", options.word_penalty, "w of --length-penalty's formula; below 0 rewards length")
      ->capture_default_str();
}

CLI::Option* add_attn_type(CLI::App& command, std::string& attn_type) {
  return command
      .add_option("--attn_type,--attn-type", attn_type,
                  "the attention: materialised, FlashAttention (2022), or FlashAttention-2")
      ->check(one_of({"dotscale", "flash_attn", "imp_flash_attn"}));
}

void add_translate_options(CLI::App& command, std::string& attn_type, nmt::TranslateOptions& translate,
                           RunOptions& run) {
  command.add_option("--batch-size", translate.batch.sentences, "sentences a batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_attn_type(command, attn_type);
  add_search_options(command, translate.search);
  run.add_to(command);
}

}  // namespace strobe::cli
