// The tensors of a case, the calls on them, and what the results must be.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/attention/reference.h"
#include "strobe/attention.h"
#include "tests/attention/attention_case.h"
#include "tests/attention/device.h"
#include "tests/attention/tensor.h"

namespace strobe::testing {

/// What a forward and a backward call wrote, compact: [B, N, H, D] or [total, H, D], the LSE as it is.
struct Results {
  std::vector<double> out, softmax_lse, grad_q, grad_k, grad_v;
};

/// Whether all of it is equal bit by bit.
bool bitwise_equal(const Results& a, const Results& b);

/// The inputs of a case: normal numbers where something is visible, NaN in every hidden row and around the tensors.
class Problem {
 public:
  explicit Problem(const AttentionCase& c);

  const AttentionCase& shape() const { return case_; }
  const Tensor& q() const { return q_; }
  const Tensor& k() const { return k_; }
  const Tensor& v() const { return v_; }
  const Tensor& grad_out() const { return grad_out_; }

  /// Params with the inputs and no outputs, no workspace and one thread: enough for why_not and for the reference.
  AttentionFwdParams fwd_params(Algorithm algorithm) const;
  AttentionBwdParams bwd_params(Algorithm algorithm) const;

  /// Forward, then backward on what it wrote, on the test's device. Fails the test where anything but the outputs has
  /// been written to.
  Results run(const KernelSetting& setting) const;

 private:
  template <class Params>
  void set_common(Params& params, Algorithm algorithm) const;
  template <class Params>
  void move_inputs(DeviceMemory& memory, Params& params) const;
  void hide_rows();

  AttentionCase case_;
  std::vector<int32_t> cu_seqlens_q_, cu_seqlens_k_;
  uint64_t rng_state_[2];
  Tensor q_, k_, v_, grad_out_;
  std::vector<float> grad_softmax_lse_;
};

/// Who evaluates the formulas that a kernel is measured by.
struct Oracle {
  reference::Forward (*forward)(const AttentionFwdParams& params, reference::Arithmetic arithmetic);
  reference::Backward (*backward)(const AttentionBwdParams& params, reference::Arithmetic arithmetic);
};
inline constexpr Oracle kCpuOracle{reference::forward, reference::backward};

/// The oracle's results and how far a kernel's may be from them.
struct Expectation {
  DType dtype = DType::kFloat32;
  Results oracle;
  double out = 0, grad_q = 0, grad_k = 0, grad_v = 0;  // bounds of max |error|
  Results plain;                                       // what the bounds come from
  std::vector<double> softmax_lse;                     // bound of each row
};
Expectation expect(const Problem& problem, const Oracle& oracle = kCpuOracle);

enum class NonFinite {
  kSameKind,  // NaN where the oracle has a NaN, an infinity where it has that infinity
  kAnyKind,   // either where the oracle has either: Inf - Inf depends on the order of a sum
};

/// Fails the test, naming `label`, where a result is beyond its bound or its NaN and infinities are not the oracle's.
void check(const Results& results, const Expectation& expectation, const std::string& label,
           NonFinite non_finite = NonFinite::kSameKind);

/// All of it for every kernel of this machine.
void check_case(const AttentionCase& c, const Oracle& oracle = kCpuOracle);

/// For each setting of this machine that offers the case; counts it.
void for_each_kernel(const AttentionCase& c, const std::function<void(const KernelSetting& kernel)>& body);
/// Those whose results are bitwise repeatable.
void for_each_deterministic_kernel(const AttentionCase& c,
                                   const std::function<void(const KernelSetting& kernel)>& body);

}  // namespace strobe::testing
