#include "ops/flash.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include "ops/checks.h"
#include "ops/device_call.h"
#include "ops/rng.h"

namespace strobe::ops {
namespace {

constexpr int64_t kTensorAlignment = 16;      // bytes, of base pointers and strides
constexpr int64_t kWorkspaceAlignment = 256;  // bytes

/// The library's view of a tensor: `t` itself where its strides and its base fit, else a contiguous copy.
at::Tensor fitting(const at::Tensor& t) {
  const int64_t bytes = t.element_size();
  bool fits = reinterpret_cast<std::uintptr_t>(t.const_data_ptr()) % kTensorAlignment == 0;
  fits = fits && (t.size(-1) == 1 || t.stride(-1) == 1);
  for (int64_t dim = 0; dim + 1 < t.dim(); ++dim) {
    fits = fits && (t.size(dim) == 1 || t.stride(dim) * bytes % kTensorAlignment == 0);
  }
  return fits ? t : t.clone(at::MemoryFormat::Contiguous);
}

/// Of batch, row and head.
std::tuple<int64_t, int64_t, int64_t> strides(const at::Tensor& t) {
  if (t.dim() == 3) return {0, t.stride(0), t.stride(1)};
  return {t.stride(0), t.stride(1), t.stride(2)};
}

DType library_dtype(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    default:
      return DType::kFloat32;
  }
}

/// The optional int32 vectors, contiguous and kept alive for the call.
struct Lengths {
  explicit Lengths(const AttentionOptions& o)
      : key(contiguous(o.key_lengths)),
        query(contiguous(o.query_lengths)),
        cu_q(contiguous(o.cu_seqlens_q)),
        cu_k(contiguous(o.cu_seqlens_k)) {}

  static at::Tensor contiguous(const OptionalTensor& t) { return t ? t->contiguous() : at::Tensor(); }
  static const int32_t* words(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<int32_t>() : nullptr; }

  at::Tensor key, query, cu_q, cu_k;
};

template <class Params>
void set_call(Params& p, const Execution& execution, const AttentionOptions& o, const Lengths& lengths,
              const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& rng_state) {
  const AttentionSizes s = attention_sizes(o, q, k);
  p.device = execution.device;
  p.stream = execution.stream;
  p.num_threads = execution.num_threads;
  p.parallel_for = execution.parallel_for;
  p.dtype = library_dtype(q);
  p.algorithm = parse_attn_type(o.attn_type) == AttnType::kFlashAttn ? Algorithm::kFlashAttn : Algorithm::kImpFlashAttn;
  p.batch = s.batch;
  p.seqlen_q = s.seqlen_q;
  p.seqlen_k = s.seqlen_k;
  p.total_q = s.total_q;
  p.total_k = s.total_k;
  p.num_heads_q = s.num_heads_q;
  p.num_heads_k = s.num_heads_k;
  p.head_dim = s.head_dim;
  p.key_lengths = Lengths::words(lengths.key);
  p.query_lengths = Lengths::words(lengths.query);
  p.cu_seqlens_q = Lengths::words(lengths.cu_q);
  p.cu_seqlens_k = Lengths::words(lengths.cu_k);
  p.softmax_scale = static_cast<float>(softmax_scale(o, s.head_dim));
  p.causal = o.causal;
  p.window_left = o.window_left;
  p.window_right = o.window_right;
  p.dropout_p = o.dropout_p;
  p.rng_state = rng_words(rng_state);
  p.q = q.const_data_ptr();
  p.k = k.const_data_ptr();
  p.v = v.const_data_ptr();
  std::tie(p.q_batch_stride, p.q_row_stride, p.q_head_stride) = strides(q);
  std::tie(p.k_batch_stride, p.k_row_stride, p.k_head_stride) = strides(k);
  std::tie(p.v_batch_stride, p.v_row_stride, p.v_head_stride) = strides(v);
}

/// Uninitialised scratch, aligned as the library asks.
class Workspace {
 public:
  Workspace(std::size_t bytes, const at::Tensor& like) {
    if (bytes == 0) return;
    buffer_ = at::empty({static_cast<int64_t>(bytes) + kWorkspaceAlignment - 1}, like.options().dtype(at::kByte));
    const auto address = reinterpret_cast<std::uintptr_t>(buffer_.mutable_data_ptr());
    data_ = reinterpret_cast<void*>((address + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment);
  }
  void* data() const { return data_; }

 private:
  at::Tensor buffer_;
  void* data_ = nullptr;
};

/// Asks why not, brings the workspace and runs.
template <class Params>
void run(Params& params, const AttentionOptions& options, const at::Tensor& like, void (*call)(const Params&)) {
  const std::string why_not = attention_why_not(params);
  TORCH_CHECK(why_not.empty(), "strobe::attention: attn_type \"", options.attn_type, "\" cannot run here: ", why_not);
  translate_errors([&] {
    const Workspace workspace(attention_workspace_size(params), like);
    params.workspace = workspace.data();
    call(params);
  });
}

}  // namespace

Tensor3 flash_forward(const Execution& execution, const AttentionOptions& options, const at::Tensor& q_given,
                      const at::Tensor& k_given, const at::Tensor& v_given) {
  const at::Tensor q = fitting(q_given), k = fitting(k_given), v = fitting(v_given);
  const at::Tensor out = at::empty(q.sizes(), q.options());
  const at::Tensor lse = at::empty_symint(lse_shape(q), q.options().dtype(at::kFloat));
  const at::Tensor rng_state = draw_rng_state(options, q);
  const Lengths lengths(options);

  AttentionFwdParams p;
  set_call(p, execution, options, lengths, q, k, v, rng_state);
  p.out = out.mutable_data_ptr();
  p.softmax_lse = lse.mutable_data_ptr<float>();
  std::tie(p.out_batch_stride, p.out_row_stride, p.out_head_stride) = strides(out);
  run(p, options, q, &strobe::attention_forward);
  return {out, lse, rng_state};
}

void flash_backward(const Execution& execution, const AttentionOptions& options, const at::Tensor& grad_out_given,
                    const OptionalTensor& grad_softmax_lse, const at::Tensor& q_given, const at::Tensor& k_given,
                    const at::Tensor& v_given, const at::Tensor& out_given, const at::Tensor& softmax_lse,
                    const Gradients& gradients) {
  const at::Tensor q = fitting(q_given), k = fitting(k_given), v = fitting(v_given);
  const at::Tensor out = fitting(out_given), grad_out = fitting(grad_out_given), lse = softmax_lse.contiguous();
  const at::Tensor grad_lse = grad_softmax_lse ? grad_softmax_lse->contiguous() : at::Tensor();
  const Lengths lengths(options);

  AttentionBwdParams p;
  set_call(p, execution, options, lengths, q, k, v, options.dropout_p > 0 ? *options.rng_state : at::Tensor());
  p.deterministic = options.deterministic || at::globalContext().deterministicAlgorithms();
  p.out = out.const_data_ptr();
  p.softmax_lse = lse.const_data_ptr<float>();
  p.grad_out = grad_out.const_data_ptr();
  p.grad_softmax_lse = grad_lse.defined() ? grad_lse.const_data_ptr<float>() : nullptr;
  p.grad_q = gradients.q.mutable_data_ptr();
  p.grad_k = gradients.k.mutable_data_ptr();
  p.grad_v = gradients.v.mutable_data_ptr();
  std::tie(p.out_batch_stride, p.out_row_stride, p.out_head_stride) = strides(out);
  std::tie(p.grad_out_batch_stride, p.grad_out_row_stride, p.grad_out_head_stride) = strides(grad_out);
  std::tie(p.grad_q_batch_stride, p.grad_q_row_stride, p.grad_q_head_stride) = strides(gradients.q);
  std::tie(p.grad_k_batch_stride, p.grad_k_row_stride, p.grad_k_head_stride) = strides(gradients.k);
  std::tie(p.grad_v_batch_stride, p.grad_v_row_stride, p.grad_v_head_stride) = strides(gradients.v);
  run(p, options, q, &strobe::attention_backward);
}

}  // namespace strobe::ops
