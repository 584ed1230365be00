// What the processes of a run tell each other at each update.
#pragma once

#include <cstdint>

#include "train/distributed/communicator.h"

namespace strobe::train {

/// Known to the hosts: telling it waits for the other hosts, which run ahead of their GPUs, but for no GPU.
struct Tally {
  int64_t signal = 0;         // that has asked this process to stop; of several the largest
  int64_t out_of_memory = 0;  // processes that could not compute their batches
  int64_t target_tokens = 0;  // counted items of the update's batches
  int64_t source_tokens = 0;
  int64_t slots = 0;
  int64_t padding = 0;
};

/// Tells the others, from when it is made. Must go before its communicator.
class Agreement {
 public:
  Agreement(const Tally& own, Communicator& communicator);

  /// The sums over all processes. Once.
  Tally wait();

 private:
  Tally own_;
  Communicator& communicator_;
  Communicator::Gathering gathering_;
};

/// A seed of dropout for each rank; rank 0 has that of a run of one process.
uint64_t seed_of_rank(uint64_t seed, int rank);

}  // namespace strobe::train
