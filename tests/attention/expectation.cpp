// The bounds. A kernel's error is at most twice (gradients: three times) that of the plain formula of the same
// precision, both against the oracle in double, plus two allowances for where the plain formula is exact by accident
// (one key, say):
//   the rounding of x + 0.3 - 0.3 in the tensor's type, twice;
//   kSumRoundings fp32 roundings of the terms that the element is a sum of, because O, dP and delta may be summed in
//   any order, and dS = P (dP - delta) may cancel to nothing while the roundings of dP and delta stay.
// The LSE is fp32 whatever the inputs are and its bound is the analysis of its own formula, see lse_bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>

#include "src/attention/element.h"
#include "src/attention/reference.h"
#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

constexpr double kUnitRoundoff = 0x1p-24;  // of fp32
constexpr double kSumRoundings = 2;
constexpr double kOutFactor = 2, kGradientFactor = 3;

/// The largest |a - b| where both are finite.
double max_error(const std::vector<double>& a, const std::vector<double>& b) {
  double result = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isfinite(a[i]) && std::isfinite(b[i])) result = std::max(result, std::fabs(a[i] - b[i]));
  }
  return result;
}

/// max |(x + 0.3 - 0.3) - x| in the type.
double rounding_allowance(const std::vector<double>& oracle, DType dtype) {
  double result = 0;
  for (const double value : oracle) {
    if (!std::isfinite(value)) continue;
    const float x = round_to(dtype, static_cast<float>(value));
    const float y = round_to(dtype, round_to(dtype, x + 0.3f) - 0.3f);
    result = std::max(result, std::fabs(static_cast<double>(y) - x));
  }
  return result;
}

double bound(double factor, const std::vector<double>& oracle, const std::vector<double>& plain, double magnitude,
             DType dtype) {
  return factor * max_error(plain, oracle) + 2 * rounding_allowance(oracle, dtype) +
         kSumRoundings * kUnitRoundoff * magnitude;
}

/// The errors of the scores (a sum of D products, in any order, then scaled, then scaled to base 2 and made relative to
/// the maximum), of exp, of a sum of Nk positive terms, of log and of the last addition.
double lse_bound(double lse, double score_magnitude, int64_t head_dim, int64_t seqlen_k) {
  if (!std::isfinite(lse)) return 0;
  const double scores = static_cast<double>(head_dim + 6) * score_magnitude;
  return kUnitRoundoff * (scores + static_cast<double>(seqlen_k + 8) + 4 * std::fabs(lse));
}

/// What the whole run saw, printed at its end.
class Ledger : public ::testing::Environment {
 public:
  void count(const std::string& kernel) { ++cases_[kernel]; }

  void record(const std::string& tensor, double error, double plain_error) {
    ++results_[tensor];
    if (plain_error > 0) largest_ratio_[tensor] = std::max(largest_ratio_[tensor], error / plain_error);
    if (error > kOutFactor * plain_error) ++beyond_twice_[tensor];
  }

  void TearDown() override {
    for (const auto& [kernel, count] : cases_) std::cout << "[ cases    ] " << kernel << ": " << count << '\n';
    for (const auto& [tensor, ratio] : largest_ratio_) {
      std::cout << "[ error    ] " << tensor << ": at most " << ratio << " times the plain formula's, beyond twice in "
                << beyond_twice_[tensor] << " of " << results_[tensor] << " results\n";
    }
  }

 private:
  std::map<std::string, int64_t> cases_;
  std::map<std::string, double> largest_ratio_;
  std::map<std::string, int64_t> results_, beyond_twice_;
};

Ledger& ledger() {
  static Ledger* const instance = new Ledger;  // gtest owns and deletes it
  return *instance;
}

[[maybe_unused]] const auto* const kLedger = ::testing::AddGlobalTestEnvironment(&ledger());

bool same_kind(double a, double b, NonFinite non_finite) {
  if (non_finite == NonFinite::kAnyKind) return std::isfinite(a) == std::isfinite(b);
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return true;
}

void check_tensor(const char* tensor, const std::vector<double>& got, const std::vector<double>& oracle,
                  const std::function<double(std::size_t)>& bound, NonFinite non_finite, const std::string& label) {
  ASSERT_EQ(got.size(), oracle.size()) << tensor << ' ' << label;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(same_kind(got[i], oracle[i], non_finite))
        << tensor << '[' << i << "] = " << got[i] << ", oracle " << oracle[i] << ": " << label;
    if (!std::isfinite(oracle[i])) continue;
    ASSERT_LE(std::fabs(got[i] - oracle[i]), bound(i))
        << tensor << '[' << i << "] = " << got[i] << ", oracle " << oracle[i] << ": " << label;
  }
}

}  // namespace

Expectation expect(const Problem& problem, const Oracle& oracle) {
  using reference::Arithmetic;
  const AttentionFwdParams fwd = problem.fwd_params(Algorithm::kImpFlashAttn);
  const AttentionBwdParams bwd = problem.bwd_params(Algorithm::kImpFlashAttn);
  auto plain_work = std::async(std::launch::async, [&] {
    return std::pair(oracle.forward(fwd, Arithmetic::kPlain), oracle.backward(bwd, Arithmetic::kPlain));
  });
  const reference::Forward forward = oracle.forward(fwd, Arithmetic::kExact);
  const reference::Backward backward = oracle.backward(bwd, Arithmetic::kExact);
  const auto [plain_forward, plain_backward] = plain_work.get();

  Expectation e;
  e.dtype = fwd.dtype;
  e.oracle = {forward.out, forward.softmax_lse, backward.grad_q, backward.grad_k, backward.grad_v};
  e.plain = {plain_forward.out, plain_forward.softmax_lse, plain_backward.grad_q, plain_backward.grad_k,
             plain_backward.grad_v};
  e.out = bound(kOutFactor, e.oracle.out, e.plain.out, forward.magnitudes.out, e.dtype);
  e.grad_q = bound(kGradientFactor, e.oracle.grad_q, e.plain.grad_q, backward.magnitudes.grad_q, e.dtype);
  e.grad_k = bound(kGradientFactor, e.oracle.grad_k, e.plain.grad_k, backward.magnitudes.grad_k, e.dtype);
  e.grad_v = bound(kGradientFactor, e.oracle.grad_v, e.plain.grad_v, backward.magnitudes.grad_v, e.dtype);
  for (std::size_t i = 0; i < forward.softmax_lse.size(); ++i) {
    e.softmax_lse.push_back(lse_bound(forward.softmax_lse[i], forward.score_magnitude[i], fwd.head_dim, fwd.seqlen_k));
  }
  return e;
}

void check(const Results& results, const Expectation& e, const std::string& label, NonFinite non_finite) {
  const auto compare = [&](const char* tensor, const std::vector<double>& got, const std::vector<double>& oracle,
                           const std::vector<double>& plain, double bound) {
    check_tensor(
        tensor, got, oracle, [bound](std::size_t) { return bound; }, non_finite, label);
    ledger().record(std::string(name(e.dtype)) + ' ' + tensor, max_error(got, oracle), max_error(plain, oracle));
  };
  compare("out", results.out, e.oracle.out, e.plain.out, e.out);
  compare("grad_q", results.grad_q, e.oracle.grad_q, e.plain.grad_q, e.grad_q);
  compare("grad_k", results.grad_k, e.oracle.grad_k, e.plain.grad_k, e.grad_k);
  compare("grad_v", results.grad_v, e.oracle.grad_v, e.plain.grad_v, e.grad_v);
  const auto lse_bound = [&](std::size_t i) { return e.softmax_lse[i]; };
  check_tensor("softmax_lse", results.softmax_lse, e.oracle.softmax_lse, lse_bound, non_finite, label);
}

void for_each_kernel(const AttentionCase& c, const std::function<void(const KernelSetting&)>& body) {
  for_each_setting(c, [&](const KernelSetting& kernel) {
    body(kernel);
    ledger().count(kernel.label);
  });
}

void for_each_deterministic_kernel(const AttentionCase& c, const std::function<void(const KernelSetting&)>& body) {
  for_each_setting(c, [&](const KernelSetting& kernel) {
    if (kDevice == Device::kCUDA && kernel.algorithm == Algorithm::kImpFlashAttn && !kernel.deterministic) return;
    body(kernel);
    ledger().count(kernel.label);
  });
}

void check_case(const AttentionCase& c, const Oracle& oracle) {
  std::ostringstream text;
  text << c;
  const Problem problem(c);
  std::optional<Expectation> expectation;  // for the first kernel that offers the case
  for_each_kernel(c, [&](const KernelSetting& kernel) {
    if (!expectation) expectation = expect(problem, oracle);
    check(problem.run(kernel), *expectation, kernel.label + " " + text.str());
  });
}

}  // namespace strobe::testing
