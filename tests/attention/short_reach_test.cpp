// The reach of the short family on CUDA is the table in its configuration.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "src/attention/cuda/sm80/short_config.h"
#include "src/attention/cuda/sm90/short_bwd_config.h"

namespace strobe::cuda::sm80 {
namespace {

constexpr int kKilobyte = 1024;
constexpr std::array kColumns{32, 64, 80, 96, 128};

struct Row {
  int shared_memory;
  std::array<int, kColumns.size()> fwd, bwd;
};

constexpr Row kTable[] = {
    {99 * kKilobyte, {640, 256, 192, 128, 128}, {256, 176, 144, 112, 80}},
    {163 * kKilobyte, {640, 512, 384, 320, 256}, {256, 272, 240, 128, 128}},
    {227 * kKilobyte, {640, 640, 576, 448, 384}, {256, 272, 272, 128, 128}},
};

TEST(ShortReach, IsTheTable) {
  for (const Row& row : kTable) {
    for (std::size_t i = 0; i < kColumns.size(); ++i) {
      for (int n = 1; n <= 700; ++n) {
        ASSERT_EQ(short_fwd_reaches(row.shared_memory, n, n, kColumns[i]), n <= row.fwd[i]) << n << ' ' << kColumns[i];
        ASSERT_EQ(short_bwd_reaches(row.shared_memory, n, n, kColumns[i], false), n <= row.bwd[i])
            << n << ' ' << kColumns[i];
        ASSERT_FALSE(short_bwd_reaches(row.shared_memory, n, n, kColumns[i], true));
      }
    }
  }
}

TEST(ShortReach, NoWiderHeads) {
  EXPECT_FALSE(short_fwd_reaches(227 * kKilobyte, 8, 8, 256));
  EXPECT_FALSE(short_bwd_reaches(227 * kKilobyte, 8, 8, 256, false));
}

/// What the plans ask for is there.
TEST(ShortReach, PlansFit) {
  for (const Row& row : kTable) {
    for (const int columns : kColumns) {
      for (int nk = 1; nk <= 640; ++nk) {
        if (!short_fwd_reaches(row.shared_memory, nk, nk, columns)) continue;
        ASSERT_LE(fwd_bytes(columns, fwd_slots(row.shared_memory, nk, columns)), row.shared_memory)
            << nk << ' ' << columns;
      }
      for (int nq = 1; nq <= 640; nq += 13) {
        for (int nk = 1; nk <= 272; ++nk) {
          if (!short_bwd_reaches(row.shared_memory, nq, nk, columns, false)) continue;
          const ResidentBwdPlan plan = resident_bwd_plan(row.shared_memory, nq, nk, columns);
          ASSERT_LE(resident_bwd_bytes(nq, nk, columns, plan), row.shared_memory) << nq << ' ' << nk << ' ' << columns;
        }
      }
    }
  }
}

/// The streamed backward of sm_90, where it is used.
TEST(ShortReach, StreamPlansFit) {
  constexpr int kSharedMemory = 227 * kKilobyte;
  for (const int columns : kColumns) {
    for (int nq = 1; nq <= 700; nq += 7) {
      for (int nk = 1; nk <= 300; ++nk) {
        const bool expected = (columns == 64 || columns == 80) && nq > 128 && nq <= 640 && nk > 128 && nk <= 257;
        ASSERT_EQ(sm90::stream_reaches(kSharedMemory, nq, nk, columns), expected) << nq << ' ' << nk << ' ' << columns;
        if (!expected) continue;
        const sm90::StreamPlan plan = sm90::stream_plan(kSharedMemory, nq, nk, columns);
        ASSERT_LE(plan.bytes, kSharedMemory) << nq << ' ' << nk << ' ' << columns;
        ASSERT_LE(std::max(plan.q_slots, plan.ds_slots), sm90::kMostSlots) << nq << ' ' << nk << ' ' << columns;
      }
    }
  }
}

}  // namespace
}  // namespace strobe::cuda::sm80
