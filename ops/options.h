// The keyword arguments that all attention operators share. They are listed here and nowhere else: as schema text, as
// the tail of a kernel's signature, and as the tail of a call.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>

#include "ops/attention.h"

namespace strobe::ops {

inline constexpr const char* kOptionsSchema =
    "*, str attn_type=\"imp_flash_attn\", float? softmax_scale=None, bool causal=False, int window_left=-1, "
    "int window_right=-1, Tensor? key_lengths=None, Tensor? query_lengths=None, Tensor? cu_seqlens_q=None, "
    "Tensor? cu_seqlens_k=None, SymInt? max_seqlen_q=None, SymInt? max_seqlen_k=None, float dropout_p=0.0, "
    "bool deterministic=False, bool return_lse=False, Tensor? rng_state=None";

using OptionalTensor = std::optional<at::Tensor>;

/// WithOptions<&kernel>::call is the function that the dispatcher calls, for a kernel R(const AttentionOptions&,
/// Head...).
template <auto kKernel>
struct WithOptions;

template <class R, class... Head, R (*kKernel)(const AttentionOptions&, Head...)>
struct WithOptions<kKernel> {
  static R call(Head... head, std::string_view attn_type, std::optional<double> softmax_scale, bool causal,
                int64_t window_left, int64_t window_right, const OptionalTensor& key_lengths,
                const OptionalTensor& query_lengths, const OptionalTensor& cu_seqlens_q,
                const OptionalTensor& cu_seqlens_k, std::optional<c10::SymInt> max_seqlen_q,
                std::optional<c10::SymInt> max_seqlen_k, double dropout_p, bool deterministic, bool return_lse,
                const OptionalTensor& rng_state) {
    const AttentionOptions options{.attn_type = std::string(attn_type),
                                   .softmax_scale = softmax_scale,
                                   .causal = causal,
                                   .window_left = window_left,
                                   .window_right = window_right,
                                   .key_lengths = key_lengths,
                                   .query_lengths = query_lengths,
                                   .cu_seqlens_q = cu_seqlens_q,
                                   .cu_seqlens_k = cu_seqlens_k,
                                   .max_seqlen_q = std::move(max_seqlen_q),
                                   .max_seqlen_k = std::move(max_seqlen_k),
                                   .dropout_p = dropout_p,
                                   .deterministic = deterministic,
                                   .return_lse = return_lse,
                                   .rng_state = rng_state};
    return kKernel(options, head...);
  }
};

/// A handle on a registered operator: OptionsOp<R(Head...)>("strobe::name")(options, head...).
template <class Signature>
class OptionsOp;

template <class R, class... Head>
class OptionsOp<R(Head...)> {
 public:
  explicit OptionsOp(const char* name)
      : handle_(c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Operator>()) {}

  R operator()(const AttentionOptions& o, Head... head) const {
    return handle_.call(head..., o.attn_type, o.softmax_scale, o.causal, o.window_left, o.window_right, o.key_lengths,
                        o.query_lengths, o.cu_seqlens_q, o.cu_seqlens_k, o.max_seqlen_q, o.max_seqlen_k, o.dropout_p,
                        o.deterministic, o.return_lse, o.rng_state);
  }

 private:
  using Operator = R(Head..., std::string_view, std::optional<double>, bool, int64_t, int64_t, const OptionalTensor&,
                     const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, std::optional<c10::SymInt>,
                     std::optional<c10::SymInt>, double, bool, bool, const OptionalTensor&);
  c10::TypedOperatorHandle<Operator> handle_;
};

}  // namespace strobe::ops
