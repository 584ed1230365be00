// The schemas of torch.ops.strobe.*; the kernels are registered in cpu/, cuda/, meta/, autograd/ and autocast/.
#include <torch/library.h>

#include <string>

#include "ops/options.h"

namespace strobe::ops {
namespace {

/// What the dropout seed of the forward operators and the tracing tools need to know.
const std::vector<at::Tag> kDraws = {at::Tag::nondeterministic_seeded, at::Tag::pt2_compliant_tag};
const std::vector<at::Tag> kPure = {at::Tag::pt2_compliant_tag};

c10::FunctionSchema schema(const std::string& name, const std::string& arguments, const std::string& returns) {
  return torch::schema((name + "(" + arguments + ", " + kOptionsSchema + ") -> " + returns).c_str());
}

}  // namespace

TORCH_LIBRARY(strobe, m) {
  const std::string upstream = "Tensor grad_out, Tensor? grad_softmax_lse, ";
  const std::string saved = ", Tensor out, Tensor softmax_lse";
  const std::string outputs = "(Tensor out, Tensor softmax_lse)";
  const std::string gradients = "(Tensor grad_q, Tensor grad_k, Tensor grad_v)";

  m.def(schema("attention", "Tensor q, Tensor k, Tensor v", outputs), kDraws);
  m.def(schema("attention_qkvpacked", "Tensor qkv, int num_heads_q", outputs), kDraws);
  m.def(schema("attention_kvpacked", "Tensor q, Tensor kv", outputs), kDraws);

  m.def(
      schema("attention_forward", "Tensor q, Tensor k, Tensor v", "(Tensor out, Tensor softmax_lse, Tensor rng_state)"),
      kDraws);
  m.def(schema("attention_backward", upstream + "Tensor q, Tensor k, Tensor v" + saved, gradients), kPure);
  m.def(schema("attention_qkvpacked_backward", upstream + "Tensor qkv, int num_heads_q" + saved, "Tensor"), kPure);
  m.def(schema("attention_kvpacked_backward", upstream + "Tensor q, Tensor kv" + saved,
               "(Tensor grad_q, Tensor grad_kv)"),
        kPure);
  m.def(schema("dotscale_forward", "Tensor q, Tensor k, Tensor v",
               "(Tensor out, Tensor softmax_lse, Tensor probs, Tensor rng_state)"),
        kDraws);
  m.def(schema("dotscale_backward", upstream + "Tensor q, Tensor k, Tensor v, Tensor probs", gradients), kPure);
}

}  // namespace strobe::ops
