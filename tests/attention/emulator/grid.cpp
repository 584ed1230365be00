#include "tests/attention/emulator/grid.h"

#include <sys/mman.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

// Saves the callee-saved registers on the stack, stores its pointer to *from and goes on where `to` was stored.
// System V ABI for x86-64; MXCSR and the x87 control word are the same in all fibers.
extern "C" void strobe_emulator_switch(void** from, void* to);
asm(R"(
.text
.globl strobe_emulator_switch
.type strobe_emulator_switch, @function
strobe_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size strobe_emulator_switch, . - strobe_emulator_switch
)");

namespace strobe::emulator {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;  // address space; memory where it is used
constexpr std::size_t kPageBytes = 4096;
constexpr int kSharedAlignment = 128;  // what the kernels may rely on
constexpr int kBarriers = 16;

unsigned char* map(std::size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<unsigned char*>(memory);
}

/// kMostSharedMemory bytes that end at a page without access.
class SharedMemory {
 public:
  SharedMemory() {
    constexpr std::size_t kBytes = (kMostSharedMemory + kPageBytes - 1) / kPageBytes * kPageBytes;
    end_ = map(kBytes + kPageBytes) + kBytes;
    if (mprotect(end_, kPageBytes, PROT_NONE) != 0) throw std::bad_alloc();
  }
  void start_block(int bytes) {
    bytes_ = bytes;
    begin_ = end_ - (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
    std::fill(begin_, end_, kPoison);
  }
  void end_block() const {
    if (!std::all_of(begin_ + bytes_, end_, [](unsigned char byte) { return byte == kPoison; })) {
      throw EmulationError("shared memory: written behind its end");
    }
  }
  unsigned char* begin() const { return begin_; }
  int bytes() const { return bytes_; }

 private:
  static constexpr unsigned char kPoison = 0xFF;  // NaN in every type

  unsigned char *begin_ = nullptr, *end_;
  int bytes_ = 0;
};

struct Warp {
  std::array<void*, kWarpSize> stacks{};     // where each lane goes on
  std::array<void*, kWarpSize> arguments{};  // of the lanes that have come to the operation
  std::array<int, kWarpSize> order{};
  int index = 0, position = 0;  // of the running lane in the order
  const char* operation = nullptr;
  int barrier = -1;                 // that the warp waits at
  std::function<bool()> condition;  // that it waits for
  bool done = false;

  bool waits() {
    if (condition && condition()) condition = nullptr;
    return barrier >= 0 || condition;
  }
};

struct Barrier {
  int expected = 0, arrived = 0;
};

class Grid {
 public:
  Grid() : random_(seed()), stacks_(map(kStackBytes * kMostThreads)) {}

  void run(int64_t blocks, int threads, int shared_bytes, const std::function<void()>& thread) {
    if (threads % kWarpSize != 0 || threads == 0 || threads > kMostThreads || shared_bytes > kMostSharedMemory) {
      throw EmulationError("launch: " + std::to_string(threads) + " threads, " + std::to_string(shared_bytes) +
                           " bytes of shared memory");
    }
    thread_ = &thread;
    grid_size = {static_cast<unsigned>(blocks), 1, 1};
    block_size = {static_cast<unsigned>(threads), 1, 1};
    for (int64_t block = 0; block < blocks; ++block) {
      block_index.x = static_cast<unsigned>(block);
      shared_.start_block(shared_bytes);
      run_block(threads / kWarpSize);
      shared_.end_block();
    }
  }

  void meet(const char* operation, void* arguments, void (*run)(LaneArguments)) {
    Warp& warp = *running_;
    const int lane = warp.order[warp.position];
    if (warp.position == 0) {
      warp.operation = operation;
    } else if (warp.operation != operation && std::strcmp(warp.operation, operation) != 0) {
      throw EmulationError(std::string("lanes of a warp in different operations: ") + warp.operation + ", " +
                           operation);
    }
    warp.arguments[lane] = arguments;
    if (++warp.position < kWarpSize) return go_on(warp, lane);
    warp.position = 0;
    run(*reinterpret_cast<void*(*)[kWarpSize]>(warp.arguments.data()));
    if (warp.done || warp.waits() || draw(preemption_) == 0) {
      strobe_emulator_switch(&warp.stacks[lane], scheduler_);
    } else if (warp.order[0] != lane) {
      go_on(warp, lane);
    }
  }

  void arrive(int id, int threads) {
    Barrier& barrier = barriers_.at(id);
    const int expected = threads == 0 ? static_cast<int>(block_size.x) : threads;
    if (barrier.arrived == 0) barrier.expected = expected;
    if (barrier.expected != expected || expected % kWarpSize != 0) {
      throw EmulationError("barrier " + std::to_string(id) + ": different numbers of threads");
    }
    running_->barrier = id;
    barrier.arrived += kWarpSize;
    if (barrier.arrived < expected) return;
    barrier = {};
    for (Warp& warp : warps_) {
      if (warp.barrier == id) warp.barrier = -1;
    }
  }

  void wait_until(std::function<bool()> condition) { running_->condition = std::move(condition); }
  void finish_warp() { running_->done = true; }
  SharedMemory& shared() { return shared_; }

 private:
  static unsigned seed() {
    const char* text = std::getenv("STROBE_EMULATOR_SEED");
    return text == nullptr ? 1 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
  }

  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }

  /// To the lane at the warp's position.
  void go_on(Warp& warp, int from) {
    const int lane = warp.order[warp.position];
    thread_index.x = static_cast<unsigned>(warp.index * kWarpSize + lane);
    strobe_emulator_switch(&warp.stacks[from], warp.stacks[lane]);
  }

  void run_block(int num_warps) {
    // From never (a warp runs as far as it can before another starts) to after every second operation.
    constexpr unsigned kPreemptions[] = {1u << 30, 1u << 30, 64, 2};
    preemption_ = kPreemptions[draw(4)];
    barriers_ = {};
    warps_.assign(num_warps, {});
    for (int w = 0; w < num_warps; ++w) start(warps_[w], w);
    std::vector<Warp*> ready;
    while (true) {
      ready.clear();
      for (Warp& warp : warps_) {
        if (!warp.done && !warp.waits()) ready.push_back(&warp);
      }
      if (ready.empty()) break;
      running_ = ready[draw(static_cast<unsigned>(ready.size()))];
      std::shuffle(running_->order.begin(), running_->order.end(), random_);
      const int lane = running_->order[0];
      thread_index.x = static_cast<unsigned>(running_->index * kWarpSize + lane);
      strobe_emulator_switch(&scheduler_, running_->stacks[lane]);
      if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
    }
    for (const Warp& warp : warps_) {
      if (!warp.done) {
        throw EmulationError((warp.condition ? "mbarrier" : "barrier " + std::to_string(warp.barrier)) + ": warp " +
                             std::to_string(warp.index) + " waits there for others that never come");
      }
    }
  }

  void start(Warp& warp, int index) {
    warp.index = index;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      warp.order[lane] = lane;
      auto** top = reinterpret_cast<void**>(stacks_ + (index * kWarpSize + lane + 1) * kStackBytes);
#ifdef __SANITIZE_ADDRESS__
      // Of the lane before, whose first frames have not returned.
      __asan_unpoison_memory_region(reinterpret_cast<unsigned char*>(top) - kPageBytes, kPageBytes);
#endif
      *--top = nullptr;                              // where lane_main would return to
      *--top = reinterpret_cast<void*>(&lane_main);  // where the switch goes
      for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
      warp.stacks[lane] = top;
    }
  }

  static void lane_main();

  std::mt19937 random_;
  unsigned char* stacks_;
  SharedMemory shared_;
  std::vector<Warp> warps_;
  std::array<Barrier, kBarriers> barriers_;
  Warp* running_ = nullptr;
  void* scheduler_ = nullptr;
  unsigned preemption_ = 1;
  const std::function<void()>* thread_ = nullptr;
  std::exception_ptr error_;
};

Grid& grid() {
  static Grid* const instance = new Grid;  // its memory goes with the process
  return *instance;
}

void Grid::lane_main() {
  Grid& grid = emulator::grid();
  try {
    (*grid.thread_)();
    emulator::meet("the end of the kernel", nullptr, [](LaneArguments) { emulator::grid().finish_warp(); });
  } catch (...) {
    grid.error_ = std::current_exception();
  }
  void* nowhere = nullptr;
  strobe_emulator_switch(&nowhere, grid.scheduler_);
}

struct BarrierArguments {
  int id, threads;
};

}  // namespace

void run_grid(int64_t blocks, int threads, int shared_bytes, const std::function<void()>& thread) {
  grid().run(blocks, threads, shared_bytes, thread);
}

void meet(const char* operation, void* arguments, void (*run)(LaneArguments)) {
  grid().meet(operation, arguments, run);
}

void block_barrier(int id, int threads) {
  BarrierArguments arguments{id, threads};
  meet("a barrier", &arguments, [](LaneArguments lanes) {
    const auto& first = *static_cast<const BarrierArguments*>(lanes[0]);
    for (const void* lane : lanes) {
      const auto& other = *static_cast<const BarrierArguments*>(lane);
      if (other.id != first.id || other.threads != first.threads) {
        throw EmulationError("lanes of a warp at different barriers");
      }
    }
    grid().arrive(first.id, first.threads);
  });
}

void wait_until(std::function<bool()> condition) { grid().wait_until(std::move(condition)); }

unsigned char* shared_memory() { return grid().shared().begin(); }

unsigned char* shared_at(uint32_t address, int bytes) {
  const SharedMemory& shared = grid().shared();
  const int64_t offset = static_cast<int64_t>(address) - kSharedBegin;
  if (offset < 0 || offset + bytes > shared.bytes() || offset % bytes != 0) {
    throw EmulationError("shared memory: " + std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " +
                         std::to_string(shared.bytes()));
  }
  return shared.begin() + offset;
}

}  // namespace strobe::emulator
