#include "src/attention/validate.h"

#include <array>
#include <cmath>
#include <limits>
#include <sstream>

#include "src/attention/element.h"
#include "strobe/dropout.h"

namespace strobe {
namespace {

constexpr int64_t kAlignment = 16;  // bytes, of tensors and of their strides

/// One strided tensor of a call.
struct TensorArgument {
  const char* name;
  const void* data;
  bool of_queries;  // shaped like q, else like k
  bool written;
  int64_t batch_stride, row_stride, head_stride;
};

std::array<TensorArgument, 4> tensors(const AttentionFwdParams& p) {
  return {{{"q", p.q, true, false, p.q_batch_stride, p.q_row_stride, p.q_head_stride},
           {"k", p.k, false, false, p.k_batch_stride, p.k_row_stride, p.k_head_stride},
           {"v", p.v, false, false, p.v_batch_stride, p.v_row_stride, p.v_head_stride},
           {"out", p.out, true, true, p.out_batch_stride, p.out_row_stride, p.out_head_stride}}};
}

std::array<TensorArgument, 8> tensors(const AttentionBwdParams& p) {
  return {
      {{"q", p.q, true, false, p.q_batch_stride, p.q_row_stride, p.q_head_stride},
       {"k", p.k, false, false, p.k_batch_stride, p.k_row_stride, p.k_head_stride},
       {"v", p.v, false, false, p.v_batch_stride, p.v_row_stride, p.v_head_stride},
       {"out", p.out, true, false, p.out_batch_stride, p.out_row_stride, p.out_head_stride},
       {"grad_out", p.grad_out, true, false, p.grad_out_batch_stride, p.grad_out_row_stride, p.grad_out_head_stride},
       {"grad_q", p.grad_q, true, true, p.grad_q_batch_stride, p.grad_q_row_stride, p.grad_q_head_stride},
       {"grad_k", p.grad_k, false, true, p.grad_k_batch_stride, p.grad_k_row_stride, p.grad_k_head_stride},
       {"grad_v", p.grad_v, false, true, p.grad_v_batch_stride, p.grad_v_row_stride, p.grad_v_head_stride}}};
}

std::string text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

/// Gathers the lines.
class Reasons {
 public:
  explicit Reasons(std::string_view operation) : operation_(operation) {}

  void add(std::string_view argument, std::string_view expected, std::string_view found) {
    if (!lines_.empty()) lines_ += '\n';
    lines_ += reason(operation_, argument, expected, found);
  }
  void at_least(int64_t minimum, std::string_view argument, int64_t value) {
    if (value < minimum) add(argument, "at least " + std::to_string(minimum), std::to_string(value));
  }
  const std::string& lines() const { return lines_; }

 private:
  std::string operation_;
  std::string lines_;
};

/// a * b + c of non-negative numbers, or the largest number where that is too small to hold it.
int64_t saturating_multiply_add(int64_t a, int64_t b, int64_t c) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result) || __builtin_add_overflow(result, c, &result)) {
    return std::numeric_limits<int64_t>::max();
  }
  return result;
}

template <class Params>
bool is_varlen(const Params& p) {
  return p.cu_seqlens_q != nullptr || p.cu_seqlens_k != nullptr;
}

template <class Params>
void check_shape(const Params& p, Reasons& reasons) {
  reasons.at_least(0, "batch", p.batch);
  reasons.at_least(0, "seqlen_q", p.seqlen_q);
  reasons.at_least(0, "seqlen_k", p.seqlen_k);
  reasons.at_least(1, "num_heads_q", p.num_heads_q);
  reasons.at_least(1, "num_heads_k", p.num_heads_k);
  if (p.num_heads_q >= 1 && p.num_heads_k >= 1 && p.num_heads_q % p.num_heads_k != 0) {
    reasons.add("num_heads_k", "a divisor of num_heads_q = " + std::to_string(p.num_heads_q),
                std::to_string(p.num_heads_k));
  }
  const bool offered = p.head_dim == 256 || (p.head_dim >= 8 && p.head_dim <= 128 && p.head_dim % 8 == 0);
  if (!offered) reasons.add("head_dim", "a multiple of 8 up to 128, or 256", std::to_string(p.head_dim));
}

template <class Params>
void check_varlen(const Params& p, Reasons& reasons) {
  if (!is_varlen(p)) return;
  if (p.cu_seqlens_q == nullptr) reasons.add("cu_seqlens_q", "a pointer beside cu_seqlens_k", "null");
  if (p.cu_seqlens_k == nullptr) reasons.add("cu_seqlens_k", "a pointer beside cu_seqlens_q", "null");
  if (p.key_lengths != nullptr) reasons.add("key_lengths", "null beside cu_seqlens", "a pointer");
  if (p.query_lengths != nullptr) reasons.add("query_lengths", "null beside cu_seqlens", "a pointer");
  reasons.at_least(0, "total_q", p.total_q);
  reasons.at_least(0, "total_k", p.total_k);
}

template <class Params>
void check_numbers(const Params& p, Reasons& reasons) {
  const bool on_cpu = p.device == Device::kCPU;
  if (p.dtype == (on_cpu ? DType::kFloat16 : DType::kFloat32)) {
    reasons.add("dtype", on_cpu ? "float32 or bfloat16 on the CPU" : "float16 or bfloat16 on CUDA", name(p.dtype));
  }
  if (!std::isfinite(p.softmax_scale) || p.softmax_scale <= 0) {
    reasons.add("softmax_scale", "a finite number > 0", text(p.softmax_scale));
  }
  reasons.at_least(-1, "window_left", p.window_left);
  reasons.at_least(-1, "window_right", p.window_right);
  if (on_cpu) reasons.at_least(1, "num_threads", p.num_threads);
}

template <class Params>
void check_dropout(const Params& p, Reasons& reasons) {
  if (!(p.dropout_p >= 0 && p.dropout_p < 1)) {
    reasons.add("dropout_p", "0 <= dropout_p < 1", text(p.dropout_p));
    return;
  }
  if (dropout_threshold(p.dropout_p) < 1) {
    reasons.add("dropout_p", "a probability whose round((1 - dropout_p) * 65536) is at least 1",
                "1 - " + text(1 - p.dropout_p));
  }
  if (p.dropout_p > 0 && p.rng_state == nullptr) reasons.add("rng_state", "a pointer with dropout_p > 0", "null");
  if (p.dropout_p == 0 && p.rng_state != nullptr) reasons.add("rng_state", "null with dropout_p = 0", "a pointer");
}

/// The strided dimensions of a tensor as (extent, stride, name of the stride). One that has a single element is 0 steps
/// long and its stride is never used, so it may hold anything.
struct Dimension {
  int64_t extent, stride;
  const char* name;
};

template <class Params>
std::array<Dimension, 3> dimensions(const Params& p, const TensorArgument& t) {
  const bool varlen = is_varlen(p);
  const int64_t rows = varlen ? (t.of_queries ? p.total_q : p.total_k) : (t.of_queries ? p.seqlen_q : p.seqlen_k);
  return {{{varlen ? 1 : p.batch, t.batch_stride, "_batch_stride"},
           {rows, t.row_stride, "_row_stride"},
           {t.of_queries ? p.num_heads_q : p.num_heads_k, t.head_stride, "_head_stride"}}};
}

template <class Params>
bool has_elements(const Params& p, const TensorArgument& t) {
  for (const Dimension& dimension : dimensions(p, t)) {
    if (dimension.extent <= 0) return false;
  }
  return true;
}

/// Alignment, no overlap in what is written, and offsets in bytes that 64 bits hold.
template <class Params>
void check_layout(const Params& p, const TensorArgument& t, Reasons& reasons) {
  if (reinterpret_cast<std::uintptr_t>(t.data) % kAlignment != 0) {
    reasons.add(t.name, "a 16-byte aligned pointer",
                std::to_string(reinterpret_cast<std::uintptr_t>(t.data) % kAlignment) + " bytes past one");
  }
  if (!has_elements(p, t)) return;
  const int64_t element_bytes = element_size(p.dtype);
  int64_t last = p.head_dim;
  for (const auto& [extent, stride, suffix] : dimensions(p, t)) {
    if (extent == 1) continue;
    const int64_t minimum = t.written ? p.head_dim : 0;
    if (stride < minimum || stride % (kAlignment / element_bytes) != 0) {
      reasons.add(t.name + std::string(suffix),
                  "a multiple of " + std::to_string(kAlignment / element_bytes) + " elements (16 bytes), at least " +
                      std::to_string(minimum),
                  std::to_string(stride));
    }
    last = saturating_multiply_add(extent - 1, std::max<int64_t>(stride, 0), last);
  }
  if (last > std::numeric_limits<int64_t>::max() / element_bytes) {
    reasons.add(t.name, "offsets that fit in 64 bits", "larger ones");
  }
}

/// B * Hq * Nq (Hq * total_q) is what the LSE and the workspaces are sized by.
template <class Params>
void check_row_count(const Params& p, Reasons& reasons) {
  const int64_t sequences = is_varlen(p) ? 1 : p.batch;
  const int64_t rows = is_varlen(p) ? p.total_q : p.seqlen_q;
  const int64_t count = saturating_multiply_add(saturating_multiply_add(sequences, p.num_heads_q, 0), rows, 0);
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max() / (256 * 4);  // of D fp32 numbers each
  if (count > kLargest) reasons.add("softmax_lse", "a number of rows that fits in 64 bits", "a larger one");
}

template <class Params>
std::string invalid(const Params& p) {
  Reasons reasons(operation(p));
  check_shape(p, reasons);
  check_varlen(p, reasons);
  check_numbers(p, reasons);
  check_dropout(p, reasons);
  if (!reasons.lines().empty()) return reasons.lines();  // the rest relies on a sound shape
  check_row_count(p, reasons);
  for (const TensorArgument& tensor : tensors(p)) check_layout(p, tensor, reasons);
  return reasons.lines();
}

void check_cu_seqlens(const char* name, const int32_t* cu_seqlens, int64_t batch, int64_t longest, int64_t total,
                      Reasons& reasons) {
  if (cu_seqlens[0] != 0) reasons.add(name, "a first value of 0", std::to_string(cu_seqlens[0]));
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = int64_t{cu_seqlens[b + 1]} - cu_seqlens[b];
    if (length < 0 || length > longest) {
      reasons.add(name, "sequences of 0 to seqlen = " + std::to_string(longest) + " tokens",
                  std::to_string(length) + " for sequence " + std::to_string(b));
      return;
    }
  }
  if (cu_seqlens[batch] > total) {
    reasons.add(name, "a last value of at most total = " + std::to_string(total), std::to_string(cu_seqlens[batch]));
  }
}

template <class Params>
std::string invalid_memory(const Params& p) {
  Reasons reasons(operation(p));
  for (const TensorArgument& tensor : tensors(p)) {
    if (tensor.data == nullptr && has_elements(p, tensor)) reasons.add(tensor.name, "a pointer", "null");
  }
  if (p.softmax_lse == nullptr && has_elements(p, tensors(p)[0])) reasons.add("softmax_lse", "a pointer", "null");
  if (p.device == Device::kCPU && is_varlen(p)) {
    check_cu_seqlens("cu_seqlens_q", p.cu_seqlens_q, p.batch, p.seqlen_q, p.total_q, reasons);
    check_cu_seqlens("cu_seqlens_k", p.cu_seqlens_k, p.batch, p.seqlen_k, p.total_k, reasons);
  }
  return reasons.lines();
}

}  // namespace

std::string_view operation(const AttentionFwdParams&) { return "attention_forward"; }
std::string_view operation(const AttentionBwdParams&) { return "attention_backward"; }

std::string reason(std::string_view operation, std::string_view argument, std::string_view expected,
                   std::string_view found) {
  std::string line(operation);
  line.append(": ").append(argument).append(": expected ").append(expected).append(", got ").append(found);
  return line;
}

std::string invalid_params(const AttentionFwdParams& params) { return invalid(params); }
std::string invalid_params(const AttentionBwdParams& params) { return invalid(params); }

std::string invalid_pointers(const AttentionFwdParams& params) { return invalid_memory(params); }
std::string invalid_pointers(const AttentionBwdParams& params) { return invalid_memory(params); }

}  // namespace strobe
