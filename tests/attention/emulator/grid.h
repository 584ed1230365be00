// A grid of CUDA threads on one thread of the host. Every thread of a block is a fiber with a stack of its own; a warp
// advances from one collective operation to the next, lane after lane in a shuffled order, and the warps of a block
// advance in a shuffled order between its barriers, so that a missing barrier changes results. Shared memory starts as
// NaN and ends at a page that cannot be touched. What is wrong (lanes in different operations, a barrier that some
// warps never reach, an address beyond shared memory) ends the launch with EmulationError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

namespace strobe::emulator {

struct EmulationError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr int kWarpSize = 32;
inline constexpr int kMostThreads = 1024;
inline constexpr int kMostSharedMemory = 227 * 1024;
/// The 32-bit address of the first byte of shared memory: not 0, so that a pointer that was never set is caught.
inline constexpr uint32_t kSharedBegin = 1024;

/// threadIdx and its kin.
struct Index {
  unsigned x = 0, y = 0, z = 0;
};
inline Index thread_index, block_index, block_size, grid_size;

/// Runs `thread` on every thread of every block. The shuffles go on from launch to launch; STROBE_EMULATOR_SEED starts
/// them.
void run_grid(int64_t blocks, int threads, int shared_bytes, const std::function<void()>& thread);

/// What one lane brings to an operation of its warp, by the lane's number.
using LaneArguments = void* const (&)[kWarpSize];

/// Waits until all lanes of the calling lane's warp have come with the same operation; the last one calls `run`.
void meet(const char* operation, void* arguments, void (*run)(LaneArguments lanes));

/// Waits until `threads` threads, whole warps, have come to barrier `id`; 0 threads: all of the block.
void block_barrier(int id, int threads);

/// For the `run` of an operation: its warp goes on when the condition holds.
void wait_until(std::function<bool()> condition);

unsigned char* shared_memory();
/// `bytes` of shared memory at a 32-bit address, which must be aligned to them.
unsigned char* shared_at(uint32_t address, int bytes);

}  // namespace strobe::emulator
