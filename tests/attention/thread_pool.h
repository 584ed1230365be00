// A small pool of threads for the tests that spread a call over several of them.
#pragma once

#include "strobe/attention.h"

namespace strobe::testing {

/// A parallel_for that starts num_threads threads, cuts the range into three pieces for each of them and hands the
/// pieces out as the threads become free.
ParallelFor parallel_for(int num_threads);

}  // namespace strobe::testing
