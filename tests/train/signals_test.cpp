#include "train/signals.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace strobe::train {
namespace {

TEST(SignalGuard, TakesWhatAGroupGetsTwiceForOneRequest) {
  const SignalGuard guard;
  std::raise(SIGTERM);
  std::raise(SIGTERM);
  EXPECT_EQ(guard.received(), SIGTERM);
  std::raise(SIGINT);
  EXPECT_EQ(guard.received(), SIGINT);
}

TEST(SignalGuardDeathTest, ALaterOneEndsTheProcess) {
  const auto twice = [] {
    const SignalGuard guard;
    std::raise(SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(2100));
    std::raise(SIGTERM);
  };
  EXPECT_EXIT(twice(), ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace strobe::train
