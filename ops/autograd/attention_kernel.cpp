// Gradients of the public operators, packed and not: one autograd function over the inner operators.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/inner.h"

namespace strobe::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// How q, k and v come in: three tensors; qkv; or q and kv.
enum class Packing { kNone, kQkv, kKv };

/// The tensors of a call as given, undefined where there are fewer than three.
struct Inputs {
  Packing packing = Packing::kNone;
  int64_t num_heads_q = 0;  // qkv only
  at::Tensor first, second, third;

  std::array<at::Tensor, 3> qkv() const {
    if (packing == Packing::kQkv) return split_qkv(first, num_heads_q);
    if (packing == Packing::kNone) return {first, second, third};
    const auto [k, v] = split_kv(second);
    return {first, k, v};
  }
};

/// What the backward needs beside tensors; the tensors of `options` are saved apart, where autograd watches over them.
struct SavedCall : torch::CustomClassHolder {
  AttentionOptions options;
  Packing packing = Packing::kNone;
  int64_t num_heads_q = 0;
};

constexpr const char* kSavedCall = "call";

at::Tensor or_undefined(const OptionalTensor& t) { return t.value_or(at::Tensor()); }
OptionalTensor or_none(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

/// dotscale's gradients in the packing of the inputs.
variable_list dotscale_gradients(const AttentionOptions& options, const Inputs& inputs, const at::Tensor& grad_out,
                                 const OptionalTensor& grad_lse, const at::Tensor& probs) {
  const auto [q, k, v] = inputs.qkv();
  auto [grad_q, grad_k, grad_v] = dotscale_backward(options, grad_out, grad_lse, q, k, v, probs);
  if (inputs.packing == Packing::kQkv) return {at::cat({grad_q, grad_k, grad_v}, -2)};
  if (inputs.packing == Packing::kKv) return {grad_q, at::cat({grad_k, grad_v}, -2)};
  return {grad_q, grad_k, grad_v};
}

/// The flash types' gradients; the kernel writes packed ones through views.
variable_list flash_gradients(const AttentionOptions& options, const Inputs& inputs, const at::Tensor& grad_out,
                              const OptionalTensor& grad_lse, const at::Tensor& out, const at::Tensor& lse) {
  if (inputs.packing == Packing::kQkv) {
    return {attention_qkvpacked_backward(options, grad_out, grad_lse, inputs.first, inputs.num_heads_q, out, lse)};
  }
  if (inputs.packing == Packing::kKv) {
    auto [grad_q, grad_kv] =
        attention_kvpacked_backward(options, grad_out, grad_lse, inputs.first, inputs.second, out, lse);
    return {grad_q, grad_kv};
  }
  auto [grad_q, grad_k, grad_v] =
      attention_backward(options, grad_out, grad_lse, inputs.first, inputs.second, inputs.third, out, lse);
  return {grad_q, grad_k, grad_v};
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& first, const OptionalTensor& second,
                               const OptionalTensor& third, Packing packing, int64_t num_heads_q,
                               const AttentionOptions& options) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Inputs inputs{packing, num_heads_q, first, or_undefined(second), or_undefined(third)};
    const auto [q, k, v] = inputs.qkv();
    at::Tensor out, lse, rng_state, probs, saved_out, saved_lse;
    if (parse_attn_type(options.attn_type) == AttnType::kDotscale) {
      std::tie(out, lse, probs, rng_state) = dotscale_forward(options, q, k, v);
    } else {
      std::tie(out, lse, rng_state) = attention_forward(options, q, k, v);
      saved_out = out;
      saved_lse = lse;
      if (!options.return_lse) lse = at::empty({0}, lse.options());
    }
    if (!options.return_lse) ctx->mark_non_differentiable({lse});
    save(ctx, inputs, options, {saved_out, saved_lse, probs, rng_state});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto call = c10::static_intrusive_pointer_cast<SavedCall>(ctx->saved_data[kSavedCall].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    const Inputs inputs{call->packing, call->num_heads_q, saved[0], saved[1], saved[2]};
    const at::Tensor &out = saved[3], &lse = saved[4], &probs = saved[5];
    AttentionOptions options = call->options;
    options.rng_state = or_none(saved[6]);
    options.key_lengths = or_none(saved[7]);
    options.query_lengths = or_none(saved[8]);
    options.cu_seqlens_q = or_none(saved[9]);
    options.cu_seqlens_k = or_none(saved[10]);

    variable_list result;
    {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      const at::Tensor q = inputs.qkv()[0];
      const at::Tensor grad_out = grads[0].defined() ? grads[0] : at::zeros_symint(q.sym_sizes(), q.options());
      const OptionalTensor grad_lse = options.return_lse ? or_none(grads[1]) : std::nullopt;
      result = probs.defined() ? dotscale_gradients(options, inputs, grad_out, grad_lse, probs)
                               : flash_gradients(options, inputs, grad_out, grad_lse, out, lse);
    }
    refuse_double_backward(result, inputs, grads);
    result.resize(kNumArguments);
    return result;
  }

 private:
  static constexpr std::size_t kNumArguments = 6;  // of forward, without the context

  static void save(AutogradContext* ctx, const Inputs& inputs, const AttentionOptions& options,
                   const std::array<at::Tensor, 4>& results) {
    const auto& [out, lse, probs, rng_state] = results;
    ctx->save_for_backward({inputs.first, inputs.second, inputs.third, out, lse, probs, rng_state,
                            or_undefined(options.key_lengths), or_undefined(options.query_lengths),
                            or_undefined(options.cu_seqlens_q), or_undefined(options.cu_seqlens_k)});
    ctx->set_materialize_grads(false);
    auto call = c10::make_intrusive<SavedCall>();
    call->options = options;
    call->options.rng_state = call->options.key_lengths = call->options.query_lengths = std::nullopt;
    call->options.cu_seqlens_q = call->options.cu_seqlens_k = std::nullopt;
    call->packing = inputs.packing;
    call->num_heads_q = inputs.num_heads_q;
    ctx->saved_data[kSavedCall] = c10::IValue::make_capsule(std::move(call));
  }

  /// Where the gradients are to be differentiated again, hangs a node that raises between them and what they depend on.
  static void refuse_double_backward(variable_list& gradients, const Inputs& inputs, const variable_list& upstream) {
    if (!at::GradMode::is_enabled()) return;
    variable_list sources = upstream;
    for (const at::Tensor* t : {&inputs.first, &inputs.second, &inputs.third}) sources.push_back(*t);
    const std::shared_ptr<torch::autograd::Node> error(
        new torch::autograd::Error("strobe::attention: double backward is not offered",
                                   torch::autograd::collect_next_edges(sources)),
        torch::autograd::deleteNode);
    for (at::Tensor& gradient : gradients) torch::autograd::set_history(gradient, error);
  }
};

void check_no_forward_mode(const Inputs& inputs) {
  for (const at::Tensor* t : {&inputs.first, &inputs.second, &inputs.third}) {
    TORCH_CHECK(!t->defined() || !t->_fw_grad(/*level=*/0).defined(),
                "strobe::attention: forward-mode AD is not offered");
  }
}

bool needs_gradient(const Inputs& inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor* t : {&inputs.first, &inputs.second, &inputs.third}) {
    if (t->defined() && t->requires_grad()) return true;
  }
  return false;
}

/// `without_gradient` calls the operator below autograd.
template <class Call>
Tensor2 run(const AttentionOptions& options, const Inputs& inputs, const Call& without_gradient) {
  check_no_forward_mode(inputs);
  if (needs_gradient(inputs)) {
    const variable_list outputs = AttentionFunction::apply(inputs.first, or_none(inputs.second), or_none(inputs.third),
                                                           inputs.packing, inputs.num_heads_q, options);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return without_gradient();
}

Tensor2 attention_autograd(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v) {
  return run(options, {Packing::kNone, 0, q, k, v}, [&] { return attention(q, k, v, options); });
}

Tensor2 qkvpacked_autograd(const AttentionOptions& options, const at::Tensor& qkv, int64_t num_heads_q) {
  return run(options, {Packing::kQkv, num_heads_q, qkv, {}, {}},
             [&] { return attention_qkvpacked(qkv, num_heads_q, options); });
}

Tensor2 kvpacked_autograd(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& kv) {
  return run(options, {Packing::kKv, 0, q, kv, {}}, [&] { return attention_kvpacked(q, kv, options); });
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, Autograd, m) {
  m.impl("attention", TORCH_FN(WithOptions<&attention_autograd>::call));
  m.impl("attention_qkvpacked", TORCH_FN(WithOptions<&qkvpacked_autograd>::call));
  m.impl("attention_kvpacked", TORCH_FN(WithOptions<&kvpacked_autograd>::call));
  for (const char* inner : {"attention_forward", "attention_backward", "attention_qkvpacked_backward",
                            "attention_kvpacked_backward", "dotscale_forward", "dotscale_backward"}) {
    m.impl(inner, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace strobe::ops
