// What src/attention/cuda/common/ptx.cuh offers, for the emulated device: it stands before that file in the include
// path. An asynchronous copy leaves NaN where it goes and lands when its thread waits for it, so that a missing wait
// and a copy into a tile that is still being read change results.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <type_traits>

namespace strobe::cuda {

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - emulator::shared_memory()) +
         emulator::kSharedBegin;
}
inline unsigned char* dynamic_shared_memory() { return emulator::shared_memory(); }

inline void store_shared_32(uint32_t to, uint32_t value) { std::memcpy(emulator::shared_at(to, 4), &value, 4); }
inline void store_shared_64(uint32_t to, const uint2& value) { std::memcpy(emulator::shared_at(to, 8), &value, 8); }
inline void store_shared_128(uint32_t to, const uint4& value) { std::memcpy(emulator::shared_at(to, 16), &value, 16); }
inline void load_shared_128(uint32_t (&r)[4], uint32_t from) { std::memcpy(r, emulator::shared_at(from, 16), 16); }
inline void prefetch_l2(const void*) {}
inline float* held(float* address) { return address; }
inline int fresh_thread_index() { return static_cast<int>(threadIdx.x); }
inline void named_barrier(int id, int threads) { emulator::block_barrier(id, threads); }
bool named_barrier_any(int id, int threads, bool condition);
inline void add_pair_to_global(float* to, float x, float y) { to[0] += x, to[1] += y; }

void cp_async(uint32_t to, const void* from, int bytes, bool valid);
inline void cp_async_16(uint32_t to, const void* from, bool valid) { cp_async(to, from, 16, valid); }
inline void cp_async_8(uint32_t to, const void* from, bool valid) { cp_async(to, from, 8, valid); }
void cp_async_commit();
void cp_async_wait(int pending);
template <int kPending>
void cp_async_wait() {
  cp_async_wait(kPending);
}

void mbarrier_init(uint32_t barrier, int arrivals);
void mbarrier_arrive(uint32_t barrier);
void mbarrier_arrive_after_copies(uint32_t barrier);
void mbarrier_wait(uint32_t barrier, uint32_t parity);
bool mbarrier_has_ended(uint32_t barrier, uint32_t parity);
inline void release_shared(uint32_t to, uint32_t value) { store_shared_32(to, value); }
void wait_for_shared(uint32_t from, uint32_t value);
inline uint32_t fetch_increment_shared(uint32_t to) {
  return (*reinterpret_cast<uint32_t*>(emulator::shared_at(to, 4)))++;
}

void ldmatrix_x4(uint32_t (&r)[4], uint32_t address);
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address);

inline int uniform(int x) { return x; }
uint32_t warp_max(uint32_t x);

/// Exact to a rounding, which the instruction is not.
float exp2_approx(float x);
inline float reciprocal_approx(float x) { return 1 / x; }
inline float log2_approx(float x) { return log2f(x); }

uint32_t round_to(__half, float x);
uint32_t round_to(__nv_bfloat16, float x);
float to_float(__half, uint32_t bits);
float to_float(__nv_bfloat16, uint32_t bits);

template <class T>
struct Element {
  static constexpr uint32_t kExponentMask = std::is_same_v<T, __half> ? 0x7C00 : 0x7F80;

  static uint32_t pack(float low, float high) { return round_to(T{}, low) | round_to(T{}, high) << 16; }
  static float2 unpack(uint32_t pair) { return {to_float(T{}, pair & 0xFFFF), to_float(T{}, pair >> 16)}; }
  static uint32_t add_zero_times(uint32_t sum, uint32_t pair) {
    const float2 a = unpack(sum), b = unpack(pair);
    return pack(a.x + 0 * b.x, a.y + 0 * b.y);
  }
  static void mma_m16n8k8(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b);
  static void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
};

}  // namespace strobe::cuda
