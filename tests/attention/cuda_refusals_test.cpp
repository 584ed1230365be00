// What the CUDA kernels do not offer, and in which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

using ::testing::HasSubstr;

/// STROBE_CUDA_PATH for as long as it lives.
class ForcedPath {
 public:
  explicit ForcedPath(const char* path) {
    if (const char* before = std::getenv(kName)) before_ = before;
    setenv(kName, path, 1);
  }
  ~ForcedPath() { before_.empty() ? unsetenv(kName) : setenv(kName, before_.c_str(), 1); }
  ForcedPath(const ForcedPath&) = delete;
  ForcedPath& operator=(const ForcedPath&) = delete;

 private:
  static constexpr const char* kName = "STROBE_CUDA_PATH";
  std::string before_;
};

std::string why_not(const AttentionCase& c, Algorithm algorithm) {
  AttentionFwdParams fwd = Problem(c).fwd_params(algorithm);
  AttentionBwdParams bwd = Problem(c).bwd_params(algorithm);
  fwd.device = bwd.device = Device::kCUDA;
  const std::string reason = attention_why_not(fwd);
  EXPECT_EQ(reason.empty(), attention_why_not(bwd).empty());
  return reason;
}

TEST(CudaRefusals, FlashAttnOfWideHeads) {
  AttentionCase c;
  c.dtype = DType::kFloat16;
  c.head_dim = 256;
  EXPECT_THAT(why_not(c, Algorithm::kFlashAttn), HasSubstr("head_dim: expected at most "));
  EXPECT_THAT(why_not(c, Algorithm::kFlashAttn), HasSubstr("flash_attn on the path sm"));
}

TEST(CudaRefusals, BFloat16OnSm75) {
  const ForcedPath path("sm75");
  for (const Algorithm algorithm : {Algorithm::kFlashAttn, Algorithm::kImpFlashAttn}) {
    AttentionCase c;
    c.dtype = DType::kFloat16;
    const std::string half = why_not(c, algorithm);
    if (!half.empty()) {  // compiled for later architectures alone
      EXPECT_THAT(half, HasSubstr("this build has no CUDA kernels of "));
      continue;
    }
    c.dtype = DType::kBFloat16;
    EXPECT_THAT(why_not(c, algorithm), HasSubstr("dtype: expected float16 on the path sm75"));
    c.dtype = DType::kFloat16;
    c.head_dim = 256;
    EXPECT_THAT(why_not(c, algorithm), HasSubstr("head_dim: expected at most "));
  }
}

}  // namespace
}  // namespace strobe::testing
