#include "bench/attention_suites.h"

#include <c10/util/Exception.h>

namespace strobe::bench {
namespace {

using Cases = std::vector<AttentionCase>;

constexpr AttentionShape kHeadsOf64{1, 8, 0, 64};

void add_translation(Cases& cases, at::ScalarType dtype) {
  for (const bool causal : {false, true}) {
    for (const int64_t seqlen : {200, 400, 800, 1000, 2000}) {
      cases.push_back({"translation", {32, 8, seqlen, 64}, dtype, causal});
    }
  }
}

/// 16,384 tokens, all heads together 2048 wide.
void add_long(Cases& cases, at::ScalarType dtype) {
  constexpr int64_t kTokens = 16384, kWidth = 2048;
  for (const int64_t head_dim : {64, 128}) {
    for (const bool causal : {false, true}) {
      for (const int64_t seqlen : {2048, 8192, 16384}) {
        cases.push_back({"long", {kTokens / seqlen, kWidth / head_dim, seqlen, head_dim}, dtype, causal});
      }
    }
  }
}

Cases design_on_gpu(at::ScalarType dtype) {
  Cases cases = {{"ViT-B/32", {450, 12, 50, 64}, dtype, false},  {"text", {450, 12, 52, 64}, dtype, false},
                 {"ViT-B/16", {450, 12, 197, 64}, dtype, false}, {"ViT-L/14", {128, 16, 257, 64}, dtype, false},
                 {"ViT-H/14", {64, 16, 257, 80}, dtype, false},  {"ViT-L/14@336", {40, 16, 577, 64}, dtype, false}};
  add_translation(cases, dtype);
  add_long(cases, dtype);
  return cases;
}

Cases design_on_cpu(at::ScalarType dtype) {
  return {{"text", {16, 12, 52, 64}, dtype, false},
          {"ViT-B/16", {4, 12, 197, 64}, dtype, false},
          {"ViT-H/14", {2, 16, 257, 80}, dtype, false},
          {"translation", {8, 8, 200, 64}, dtype, true},
          {"translation", {2, 8, 1000, 64}, dtype, false}};
}

Cases design(at::Device device, std::optional<at::ScalarType> dtype) {
  if (!device.is_cpu()) return design_on_gpu(dtype.value_or(at::kBFloat16));
  if (dtype) return design_on_cpu(*dtype);
  Cases cases = design_on_cpu(at::kFloat);
  for (AttentionCase& each : design_on_cpu(at::kBFloat16)) cases.push_back(std::move(each));
  return cases;
}

Cases memory(at::Device device, at::ScalarType dtype) {
  const int64_t longest = device.is_cpu() ? 4096 : 65536;
  Cases cases;
  for (int64_t seqlen = longest / 64; seqlen <= longest; seqlen *= 4) {
    AttentionShape shape = kHeadsOf64;
    shape.seqlen = seqlen;
    cases.push_back({"memory", shape, dtype, false});
  }
  return cases;
}

}  // namespace

AttentionBenchOptions attention_suite(const std::string& name, at::Device device, std::optional<at::ScalarType> dtype) {
  const at::ScalarType one = dtype.value_or(device.is_cpu() ? at::kFloat : at::kBFloat16);
  AttentionBenchOptions options;
  options.device = device;
  if (name == "design") {
    options.cases = design(device, dtype);
    // A hundred repetitions of what is short; of what is long, and of the materialised matrices, fewer do.
    if (!device.is_cpu()) options.budget = {15, 100, 0.1};
  } else if (name == "memory") {
    options.cases = memory(device, one);
    options.budget = {3, 3, 0.0};
  } else if (name == "million") {
    AttentionShape shape = kHeadsOf64;
    shape.seqlen = 1 << 20;
    options.cases = {{"million", shape, one, false}};
    options.attn_type = "imp_flash_attn";
    options.peers = false;
    options.budget = {1, 1, 0.0};
  } else {
    TORCH_CHECK(false, "attention_suite: name: expected design, memory or million, found ", name);
  }
  return options;
}

}  // namespace strobe::bench
