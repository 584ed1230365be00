#include "tests/train/distributed_ranks.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "tests/train/tiny_task.h"

namespace strobe::train {

std::shared_ptr<Communicator> ranks;
at::Device device = at::kCPU;

namespace {

using std::chrono::milliseconds;

/// Trains until something happens to it. With `throws` the last rank finds bad data after a while.
int train_for_long(const std::string& folder, bool throws) {
  TinyTask::Options options;
  options.device = device;
  TinyTask task(options);
  int64_t forwards = 0;
  task.on_forward = [&](int64_t, int64_t) {
    if (++forwards == 5) std::puts("training"), std::fflush(stdout);
    if (throws && forwards == 20 && ranks->rank() == ranks->size() - 1) throw Error("bad data, says the test");
    std::this_thread::sleep_for(milliseconds(5));
  };
  TrainerOptions trainer = tiny_options(folder);
  trainer.device = device;
  trainer.ranks = ranks;
  trainer.epochs = 1000000;
  trainer.validate_every = 0;
  Logger logger;
  return train(task, trainer, logger).exit_status;
}

/// Losses are found soon enough for a test, late enough for a busy machine.
Communicator::Options options(bool expects_nobody) {
  Communicator::Options options;
  options.join_timeout = std::chrono::seconds(expects_nobody ? 1 : 60);
  options.watch.interval = milliseconds(100);
  options.watch.silence_in_failure = milliseconds(1000);
  options.watch.silence = milliseconds(3000);
  options.watch.last_resort = milliseconds(1000);
  return options;
}

}  // namespace
}  // namespace strobe::train

/// Without words the tests; `train FOLDER [throw]`: a long training; `alone`: waits in vain for the others.
int main(int argc, char** argv) {
  using namespace strobe::train;
  ::testing::InitGoogleTest(&argc, argv);
  try {
    const World world = world_from_environment();
    if (std::getenv("STROBE_TEST_CUDA") != nullptr) {
      device = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(world.local_rank));
    }
    const auto body = [&](const std::shared_ptr<Communicator>& joined) {
      ranks = joined;
      const int status = argc > 2 ? train_for_long(argv[2], argc > 3) : RUN_ALL_TESTS();
      return status;
    };
    const int status = run_in_world(world, device, body, options(argc == 2));
    ranks.reset();
    return status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    ranks.reset();
    return 1;
  }
}
