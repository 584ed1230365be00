// Tests that every process of a run executes together: distributed_test.py starts as many as it wants, with the
// environment that a launcher would set. Not for one process alone.
#pragma once

#include <memory>

#include "train/distributed/communicator.h"

namespace strobe::train {

extern std::shared_ptr<Communicator> ranks;  // that execute the tests
extern at::Device device;                    // of this one

}  // namespace strobe::train
