// That the emulated device notices what it is there to notice.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "src/attention/cuda/common/ptx.cuh"

namespace strobe::emulator {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int kThreads = 64;

/// In how many of 20 blocks every thread reads what another thread of the block has written before.
int blocks_that_agree(const std::function<void()>& between) {
  int agreeing = 0;
  for (int block = 0; block < 20; ++block) {
    bool all = true;
    run_grid(1, kThreads, kThreads * 4, [&] {
      auto* const words = reinterpret_cast<uint32_t*>(cuda::dynamic_shared_memory());
      words[threadIdx.x] = threadIdx.x;
      between();
      all &= words[kThreads - 1 - threadIdx.x] == kThreads - 1 - threadIdx.x;
    });
    agreeing += all;
  }
  return agreeing;
}

TEST(Emulator, AMissingBarrierShows) {
  EXPECT_EQ(blocks_that_agree([] { __syncthreads(); }), 20);
  EXPECT_LT(blocks_that_agree([] { __syncwarp(); }), 20);
  EXPECT_LT(blocks_that_agree([] {}), 20);
}

TEST(Emulator, PhasesOfAnMbarrier) {
  bool all = true;
  const auto phases = [&](bool arrive) {
    run_grid(1, kThreads, kThreads * 4 + 8, [&] {
      auto* const words = reinterpret_cast<uint32_t*>(cuda::dynamic_shared_memory());
      const uint32_t barrier = cuda::shared_address(words + kThreads);
      if (threadIdx.x == 0) cuda::mbarrier_init(barrier, kThreads);
      __syncthreads();
      for (uint32_t phase = 0; phase < 5; ++phase) {
        words[threadIdx.x] = phase;
        if (arrive) cuda::mbarrier_arrive(barrier);
        cuda::mbarrier_wait(barrier, phase % 2);
        all &= words[kThreads - 1 - threadIdx.x] - phase <= 1;
      }
    });
  };
  for (int block = 0; block < 20; ++block) phases(true);
  EXPECT_TRUE(all);
  EXPECT_THAT([&] { phases(false); }, ThrowsMessage<EmulationError>(HasSubstr("others that never come")));
}

TEST(Emulator, ACopyLandsWhenItsThreadWaits) {
  const uint4 source{1, 2, 3, 4};
  std::vector<uint32_t> before, after, beyond;
  run_grid(1, 32, 1024, [&] {
    const uint32_t to = cuda::shared_address(cuda::dynamic_shared_memory()) + 16 * threadIdx.x;
    const auto word = [&] { return reinterpret_cast<uint32_t*>(cuda::dynamic_shared_memory())[4 * threadIdx.x + 1]; };
    cuda::cp_async_16(to, &source, true);
    cuda::cp_async_commit();
    cuda::cp_async_16(to + 512, &source, false);
    cuda::cp_async_commit();
    before.push_back(word());
    cuda::cp_async_wait<1>();
    after.push_back(word());
    cuda::cp_async_wait<0>();
    beyond.push_back(reinterpret_cast<uint32_t*>(cuda::dynamic_shared_memory())[4 * threadIdx.x + 129]);
  });
  EXPECT_EQ(before, std::vector<uint32_t>(32, 0xFFFFFFFF));
  EXPECT_EQ(after, std::vector<uint32_t>(32, 2));
  EXPECT_EQ(beyond, std::vector<uint32_t>(32, 0));
}

TEST(Emulator, WhatIsWrongEndsTheLaunch) {
  const auto launch = [](const std::function<void()>& thread) { run_grid(1, kThreads, 256, thread); };
  EXPECT_THAT([&] { launch([] { threadIdx.x % 2 == 0 ? __syncwarp() : __syncthreads(); }); },
              ThrowsMessage<EmulationError>(HasSubstr("lanes of a warp in different operations")));
  EXPECT_THAT(
      [&] {
        launch([] {
          if (threadIdx.x < 32) __syncthreads();
        });
      },
      ThrowsMessage<EmulationError>(HasSubstr("waits there for others that never come")));
  EXPECT_THAT([&] { launch([] { cuda::store_shared_32(cuda::shared_address(shared_memory()) + 256, 0); }); },
              ThrowsMessage<EmulationError>(HasSubstr("4 bytes at 256 of 256")));
  EXPECT_THAT([&] { launch([] { cuda::store_shared_32(cuda::shared_address(shared_memory()) + 2, 0); }); },
              ThrowsMessage<EmulationError>(HasSubstr("4 bytes at 2 of 256")));
}

/// The products of 16 x 16 and 16 x 8 small integers are exact.
TEST(Emulator, ProductsOfMatrices) {
  const auto a = [](int i, int k) { return static_cast<float>((3 * i + 5 * k) % 7 - 3); };
  const auto b = [](int k, int j) { return static_cast<float>((2 * k + j) % 5 - 2); };
  run_grid(1, 32, 0, [&] {
    using Half = cuda::Element<__half>;
    const int lane = static_cast<int>(threadIdx.x), i = lane / 4, j = lane % 4 * 2;
    const uint32_t left[4] = {Half::pack(a(i, j), a(i, j + 1)), Half::pack(a(i + 8, j), a(i + 8, j + 1)),
                              Half::pack(a(i, j + 8), a(i, j + 9)), Half::pack(a(i + 8, j + 8), a(i + 8, j + 9))};
    const uint32_t right[2] = {Half::pack(b(j, i), b(j + 1, i)), Half::pack(b(j + 8, i), b(j + 9, i))};
    float whole[4] = {}, halves[4] = {};
    Half::mma_m16n8k16(whole, left, right[0], right[1]);
    Half::mma_m16n8k8(halves, left[0], left[1], right[0]);
    Half::mma_m16n8k8(halves, left[2], left[3], right[1]);
    for (int e = 0; e < 4; ++e) {
      float expected = 0;
      for (int k = 0; k < 16; ++k) expected += a(i + e / 2 * 8, k) * b(k, j + e % 2);
      EXPECT_EQ(whole[e], expected);
      EXPECT_EQ(halves[e], expected);
    }
  });
}

}  // namespace
}  // namespace strobe::emulator
