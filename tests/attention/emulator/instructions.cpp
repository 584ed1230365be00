// Operations of a warp and asynchronous copies. Fragment layouts: PTX ISA 9.0, "Warp Level Matrix Instructions".
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <vector>

#include "src/attention/cuda/sm90/boxes.cuh"
#include "src/attention/element.h"

namespace {

using strobe::emulator::kWarpSize;
using strobe::emulator::LaneArguments;
using strobe::emulator::meet;

constexpr unsigned kFullMask = 0xFFFFFFFF;
constexpr std::size_t kMemoryAlignment = 256;  // as cudaMalloc's

struct Shuffle {
  uint32_t value, result;
  int distance;
};

struct Vote {
  bool condition, result;
};

void check_mask(unsigned mask) {
  if (mask != kFullMask) throw strobe::emulator::EmulationError("an operation of a part of a warp");
}

}  // namespace

void __syncwarp() {
  meet("__syncwarp", nullptr, [](LaneArguments) {});
}

uint32_t __shfl_xor_sync(unsigned mask, uint32_t value, int distance) {
  check_mask(mask);
  Shuffle shuffle{value, 0, distance};
  meet("__shfl_xor_sync", &shuffle, [](LaneArguments lanes) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      auto& to = *static_cast<Shuffle*>(lanes[lane]);
      to.result = static_cast<const Shuffle*>(lanes[lane ^ to.distance])->value;
    }
  });
  return shuffle.result;
}

float __shfl_xor_sync(unsigned mask, float value, int distance) {
  return std::bit_cast<float>(__shfl_xor_sync(mask, std::bit_cast<uint32_t>(value), distance));
}

int __any_sync(unsigned mask, int condition) {
  check_mask(mask);
  Vote vote{condition != 0, false};
  meet("__any_sync", &vote, [](LaneArguments lanes) {
    bool any = false;
    for (const void* lane : lanes) any |= static_cast<const Vote*>(lane)->condition;
    for (void* lane : lanes) static_cast<Vote*>(lane)->result = any;
  });
  return vote.result;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = strobe::emulator::kMostSharedMemory;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 228 * 1024;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 2;  // few: launches of several waves are small then
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = std::aligned_alloc(kMemoryAlignment, (bytes + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }

namespace strobe::cuda {
namespace {

/// The asynchronous copies of one thread.
struct Copy {
  unsigned char* to;
  const void* from;  // null: zeros
  int bytes;
};
struct CopyQueue {
  std::vector<Copy> copies;             // that have not landed, from the oldest
  std::vector<std::size_t> group_ends;  // of those that are in a group
};

CopyQueue& copies_of_thread() {
  static auto* const queues = new std::array<CopyQueue, emulator::kMostThreads>;
  return (*queues)[emulator::thread_index.x];
}

/// The lanes' rows of ldmatrix and what they get.
struct MatrixLoad {
  uint32_t address;
  uint32_t* result;
};

template <bool kTransposed>
void load_matrices(uint32_t* result, uint32_t address) {
  MatrixLoad load{address, result};
  meet(kTransposed ? "ldmatrix.trans" : "ldmatrix", &load, [](LaneArguments lanes) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t rows[8][8];
      for (int row = 0; row < 8; ++row) {
        const uint32_t from = static_cast<const MatrixLoad*>(lanes[matrix * 8 + row])->address;
        std::memcpy(rows[row], emulator::shared_at(from, 16), 16);
      }
      for (int lane = 0; lane < kWarpSize; ++lane) {
        const int i = lane / 4, j = lane % 4 * 2;
        const uint32_t low = kTransposed ? rows[j][i] : rows[i][j],
                       high = kTransposed ? rows[j + 1][i] : rows[i][j + 1];
        static_cast<const MatrixLoad*>(lanes[lane])->result[matrix] = low | high << 16;
      }
    }
  });
}

template <int kK>
struct Product {
  float* c;
  const uint32_t* a;
  uint32_t b[kK / 8];
};

/// One row of a product.
template <int kK>
void sum_products(float (&sums)[8], const float (&left)[kK], const float (&right)[kK][8]) {
  typedef float Row __attribute__((vector_size(32)));
  Row row = {};
  for (int k = 0; k < kK; ++k) {
    Row factors;
    std::memcpy(&factors, right[k], sizeof(factors));
    row += left[k] * factors;
  }
  std::memcpy(sums, &row, sizeof(row));
}

/// c += a b for the fragments of m16n8k16 and m16n8k8: the products of a step are summed in fp32, then added.
template <class T, int kK>
void multiply(float* c, const uint32_t* a, std::array<uint32_t, kK / 8> b) {
  Product<kK> product{c, a, {}};
  for (int half = 0; half < kK / 8; ++half) product.b[half] = b[half];
  meet(kK == 16 ? "mma.m16n8k16" : "mma.m16n8k8", &product, [](LaneArguments lanes) {
    float left[16][kK], right[kK][8];
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const auto& from = *static_cast<const Product<kK>*>(lanes[lane]);
      const int i = lane / 4, j = lane % 4 * 2;
      for (int word = 0; word < kK / 4; ++word) {
        const float2 pair = Element<T>::unpack(from.a[word]);
        left[i + word % 2 * 8][j + word / 2 * 8] = pair.x;
        left[i + word % 2 * 8][j + word / 2 * 8 + 1] = pair.y;
      }
      for (int half = 0; half < kK / 8; ++half) {
        const float2 pair = Element<T>::unpack(from.b[half]);
        right[half * 8 + j][i] = pair.x;
        right[half * 8 + j + 1][i] = pair.y;
      }
    }
    float sums[16][8] = {};
    for (int i = 0; i < 16; ++i) sum_products<kK>(sums[i], left[i], right);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      float* const to = static_cast<const Product<kK>*>(lanes[lane])->c;
      for (int e = 0; e < 4; ++e) to[e] += sums[lane / 4 + e / 2 * 8][lane % 4 * 2 + e % 2];
    }
  });
}

}  // namespace

void cp_async(uint32_t to, const void* from, int bytes, bool valid) {
  if (reinterpret_cast<std::uintptr_t>(from) % bytes != 0) throw emulator::EmulationError("cp.async: misaligned");
  unsigned char* const target = emulator::shared_at(to, bytes);
  std::memset(target, 0xFF, bytes);
  copies_of_thread().copies.push_back({target, valid ? from : nullptr, bytes});
}

void cp_async_commit() {
  CopyQueue& queue = copies_of_thread();
  queue.group_ends.push_back(queue.copies.size());
}

void cp_async_wait(int pending) {
  auto& [copies, group_ends] = copies_of_thread();
  if (static_cast<int>(group_ends.size()) <= pending) return;
  const std::size_t groups = group_ends.size() - pending, landing = group_ends[groups - 1];
  for (std::size_t i = 0; i < landing; ++i) {
    if (copies[i].from == nullptr) {
      std::memset(copies[i].to, 0, copies[i].bytes);
    } else {
      std::memcpy(copies[i].to, copies[i].from, copies[i].bytes);
    }
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(landing));
  group_ends.erase(group_ends.begin(), group_ends.begin() + static_cast<std::ptrdiff_t>(groups));
  for (std::size_t& end : group_ends) end -= landing;
}

bool named_barrier_any(int id, int threads, bool condition) {
  static std::array<bool, 16> any;
  emulator::block_barrier(id, threads);
  any.at(id) = false;
  emulator::block_barrier(id, threads);
  if (condition) any.at(id) = true;
  emulator::block_barrier(id, threads);
  return any.at(id);
}

uint32_t warp_max(uint32_t x) {
  Shuffle shuffle{x, 0, 0};
  meet("redux.max", &shuffle, [](LaneArguments lanes) {
    uint32_t largest = 0;
    for (const void* lane : lanes) largest = std::max(largest, static_cast<const Shuffle*>(lane)->value);
    for (void* lane : lanes) static_cast<Shuffle*>(lane)->result = largest;
  });
  return shuffle.result;
}

/// In the 8 bytes: how many arrive in a phase, how many of the current one have, 16-byte pieces that it expects and
/// that have not come, and its number.
namespace {
struct MBarrier {
  uint8_t arrivals, arrived;
  int16_t expected;
  uint32_t phase;
};
constexpr int kPiece = 16;
MBarrier& mbarrier_at(uint32_t address) { return *reinterpret_cast<MBarrier*>(emulator::shared_at(address, 8)); }

void end_phase(MBarrier& at) {
  if (at.arrived < at.arrivals || at.expected != 0) return;
  at.arrived = 0;
  ++at.phase;
}

struct Wait {
  uint32_t address, value;
};
}  // namespace

void mbarrier_init(uint32_t barrier, int arrivals) { mbarrier_at(barrier) = {static_cast<uint8_t>(arrivals), 0, 0, 0}; }

void mbarrier_arrive(uint32_t barrier) {
  MBarrier& at = mbarrier_at(barrier);
  ++at.arrived;
  end_phase(at);
}

void mbarrier_arrive_and_expect(uint32_t barrier, int bytes) {
  mbarrier_at(barrier).expected += static_cast<int16_t>(bytes / kPiece);
  mbarrier_arrive(barrier);
}

void mbarrier_count(uint32_t barrier, int bytes) {
  MBarrier& at = mbarrier_at(barrier);
  at.expected -= static_cast<int16_t>(bytes / kPiece);
  end_phase(at);
}

void mbarrier_arrive_after_copies(uint32_t barrier) {
  cp_async_commit();
  cp_async_wait(0);
  mbarrier_arrive(barrier);
}

void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  Wait wait{barrier, parity};
  meet("mbarrier.wait", &wait, [](LaneArguments lanes) {
    const auto [barrier, parity] = *static_cast<const Wait*>(lanes[0]);
    emulator::wait_until([&at = mbarrier_at(barrier), parity] { return at.phase % 2 != parity; });
  });
}

bool mbarrier_has_ended(uint32_t barrier, uint32_t parity) {
  return __any_sync(0xFFFFFFFFu, mbarrier_at(barrier).phase % 2 != parity) != 0;
}

void wait_for_shared(uint32_t from, uint32_t value) {
  Wait wait{from, value};
  meet("ld.acquire", &wait, [](LaneArguments lanes) {
    const auto [from, value] = *static_cast<const Wait*>(lanes[0]);
    emulator::wait_until(
        [word = reinterpret_cast<const uint32_t*>(emulator::shared_at(from, 4)), value] { return *word == value; });
  });
}

void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) { load_matrices<false>(r, address); }
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) { load_matrices<true>(r, address); }

float exp2_approx(float x) {
  const float result = exp2f(x);
  return result < 0x1p-126f ? 0.0f : result;
}

/// The exponent is moved by 112 in a product, which takes care of numbers that are denormal in half precision.
float to_float(__half, uint32_t bits) {
  const uint32_t magnitude = (bits & 0x7FFF) << 13, sign = (bits & 0x8000) << 16;
  const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  return std::bit_cast<float>(sign | ((bits & 0x7C00) == 0x7C00 ? magnitude | 0x7F800000 : finite));
}
float to_float(__nv_bfloat16, uint32_t bits) { return bfloat16_to_float(static_cast<uint16_t>(bits)); }

/// To nearest, ties to even: in the sum of a denormal result, by hand in the others.
uint32_t round_to(__half, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000;
  const float magnitude = fabsf(x);
  if (!(magnitude < 65520.0f)) return sign | (magnitude == magnitude ? 0x7C00 : 0x7E00);
  if (magnitude < 0x1p-14f) return sign | (std::bit_cast<uint32_t>(magnitude + 0.5f) - std::bit_cast<uint32_t>(0.5f));
  const uint32_t exact = std::bit_cast<uint32_t>(magnitude) - (112u << 23);
  return sign | (exact + 0xFFF + (exact >> 13 & 1)) >> 13;
}
uint32_t round_to(__nv_bfloat16, float x) { return float_to_bfloat16(x); }

template <class T>
void Element<T>::mma_m16n8k8(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  const uint32_t a[2] = {a0, a1};
  multiply<T, 8>(c, a, {b});
}

template <class T>
void Element<T>::mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply<T, 16>(c, a, {b0, b1});
}

template struct Element<__half>;
template struct Element<__nv_bfloat16>;

}  // namespace strobe::cuda
