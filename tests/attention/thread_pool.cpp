#include "tests/attention/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

namespace strobe::testing {

ParallelFor parallel_for(int num_threads) {
  return [num_threads](int64_t count, const std::function<void(int64_t, int64_t, int)>& body) {
    const int64_t pieces = 3 * num_threads;
    std::atomic<int64_t> next{0};
    const auto work = [&](int worker) {
      for (int64_t piece = next++; piece < pieces; piece = next++) {
        const int64_t begin = count * piece / pieces, end = count * (piece + 1) / pieces;
        if (begin < end) body(begin, end, worker);
      }
    };
    std::vector<std::thread> threads;
    for (int worker = 1; worker < num_threads; ++worker) threads.emplace_back(work, worker);
    work(0);
    for (std::thread& thread : threads) thread.join();
  };
}

}  // namespace strobe::testing
