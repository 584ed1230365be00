#include "train/device.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

namespace strobe::train {
namespace {

TEST(Device, RandomStateComesBack) {
  seed_generators(at::kCPU, 3);
  const at::Tensor first = at::rand({8});
  const Dict state = random_state(at::kCPU);
  const at::Tensor second = at::rand({8});
  EXPECT_FALSE(at::equal(first, second));
  set_random_state(at::kCPU, state);
  EXPECT_TRUE(at::equal(at::rand({8}), second));
  seed_generators(at::kCPU, 3);
  EXPECT_TRUE(at::equal(at::rand({8}), first));
}

TEST(Device, TellsMemoryThatRanOutFromOtherErrors) {
  const auto ran_out = [](auto action) {
    try {
      action();
    } catch (const std::exception& error) {
      return is_out_of_memory(error);
    }
    return false;
  };
  EXPECT_TRUE(ran_out([] { at::empty({int64_t{1} << 50}); }));  // beyond any address space
  EXPECT_TRUE(ran_out([] { throw std::bad_alloc(); }));
  EXPECT_FALSE(ran_out([] { at::empty({2, 2}).view({3}); }));
  EXPECT_FALSE(ran_out([] { throw Error("something else"); }));
}

TEST(Device, PeakMemoryCountsWhatWasTouched) {
  const int64_t before = peak_memory(at::kCPU);
  const at::Tensor block = at::rand({int64_t{1} << 26});  // 256 MiB
  EXPECT_GE(peak_memory(at::kCPU), before);
  EXPECT_GE(peak_memory(at::kCPU), int64_t{256} << 20);
}

}  // namespace
}  // namespace strobe::train
