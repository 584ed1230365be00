// The instructions that C++ has no name for, one thin function each. Shared memory is addressed by 32-bit offsets
// (shared_address). PTX ISA 9.0, chapters "Data Movement" and "Warp Level Matrix Instructions".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace strobe::cuda {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// The block's dynamic shared memory.
__device__ inline unsigned char* dynamic_shared_memory() {
  extern __shared__ __align__(1024) unsigned char shared[];
  return shared;
}

__device__ inline void store_shared_32(uint32_t to, uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}

__device__ inline void store_shared_64(uint32_t to, const uint2& value) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(value.x), "r"(value.y) : "memory");
}

__device__ inline void store_shared_128(uint32_t to, const uint4& value) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

__device__ inline void load_shared_128(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

/// Asks the L2 cache for the 64 bytes around an address.
__device__ inline void prefetch_l2(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

/// Waits at barrier `id` of the block for `threads` threads, whole warps.
__device__ inline void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// The same; whether the condition holds for any of the threads.
__device__ inline bool named_barrier_any(int id, int threads, bool condition) {
  int any;
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %3, 0; bar.red.or.pred p, %1, %2, p; selp.b32 %0, 1, 0, p; }"
               : "=r"(any)
               : "r"(id), "r"(threads), "r"(static_cast<int>(condition))
               : "memory");
  return any != 0;
}

/// to[0] += x, to[1] += y in global memory, in any order with other threads.
__device__ inline void add_pair_to_global(float* to, float x, float y) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x), "f"(y) : "memory");
#else
  atomicAdd(to, x);
  atomicAdd(to + 1, y);
#endif
}

/// Copies 16 bytes to shared memory, or writes 16 zeros where `valid` is false; then `from` is not read. sm_80.
__device__ inline void cp_async_16(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

/// The same for 8 bytes. sm_80.
__device__ inline void cp_async_8(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 8 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most kPending of this thread's groups are under way.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// A barrier in 8 bytes of shared memory, for threads that do not all wait where they arrive: its phases, numbered from
/// 0, end one after the other when `arrivals` threads have come. sm_80.
__device__ inline void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void mbarrier_arrive(uint32_t barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(barrier) : "memory");
}
/// Arrives when all that this thread has asked cp.async for so far has landed.
__device__ inline void mbarrier_arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}
/// Waits for the end of the current phase if that is even (parity 0) or odd (1), of the phase before otherwise. All
/// lanes of a warp wait together.
__device__ inline void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred done; mbarrier.try_wait.parity.shared.b64 done, [%1], %2; selp.b32 %0, 1, 0, done; }"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
#else
    asm volatile("{ .reg .pred done; mbarrier.test_wait.parity.shared.b64 done, [%1], %2; selp.b32 %0, 1, 0, done; }"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
#endif
  } while (done == 0);
  __syncwarp();
}
/// Whether that phase has ended, for some lane of the warp by now.
__device__ inline bool mbarrier_has_ended(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile("{ .reg .pred done; mbarrier.test_wait.parity.shared.b64 done, [%1], %2; selp.b32 %0, 1, 0, done; }"
               : "=r"(done)
               : "r"(barrier), "r"(parity)
               : "memory");
  return __any_sync(0xFFFFFFFFu, done != 0);
}

/// A word of shared memory that says what stands behind it: written last, and read until it has come. All lanes of a
/// warp wait together.
__device__ inline void release_shared(uint32_t to, uint32_t value) {
  asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
__device__ inline void wait_for_shared(uint32_t from, uint32_t value) {
  uint32_t there;
  do {
    asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(there) : "r"(from) : "memory");
  } while (there != value);
  __syncwarp();
}

/// *to += 1 in shared memory; what it was before.
__device__ inline uint32_t fetch_increment_shared(uint32_t to) {
  uint32_t before;
  asm volatile("atom.shared.inc.u32 %0, [%1], %2;" : "=r"(before) : "r"(to), "r"(0xFFFFFFFFu) : "memory");
  return before;
}

/// Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// The same, each matrix transposed.
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// threadIdx.x, for the compiler a new number each time: what follows from it is computed anew and does not wait in
/// registers.
__device__ inline int fresh_thread_index() {
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  __builtin_assume(x >= 0);
  return x;
}

/// The address, which from here on is a register: what is at a constant distance is addressed from it.
__device__ inline float* held(float* address) {
  asm volatile("" : "+l"(address));
  return address;
}

/// x, for the compiler the same in all lanes of the warp, which it is.
__device__ inline int uniform(int x) { return __shfl_sync(0xFFFFFFFFu, x, 0); }

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
/// The largest of the lanes' numbers; the compiler knows that it is the same in all of them. sm_80, whose headers alone
/// declare the intrinsic.
__device__ inline uint32_t warp_max(uint32_t x) { return __reduce_max_sync(0xFFFFFFFFu, x); }
#endif

/// 2^x, two roundings; numbers below 2^-126 become 0, which saves the handling of denormal results.
__device__ inline float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 1 / x and log2(x), to a rounding or two; for neither very small nor very large x.
__device__ inline float reciprocal_approx(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ inline float log2_approx(float x) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// What differs between the two 16-bit types.
template <class T>
struct Element;

template <>
struct Element<__half> {
  /// The two numbers, rounded to nearest; `low` in the low half.
  static __device__ uint32_t pack(float low, float high) {
    uint32_t result;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#else
    asm("{ .reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
        : "=r"(result)
        : "f"(low), "f"(high));
#endif
    return result;
  }
  static __device__ float2 unpack(uint32_t pair) { return __half22float2(reinterpret_cast<const __half2&>(pair)); }
  static constexpr uint32_t kExponentMask = 0x7C00;  // all ones: an infinity or a NaN
  /// sum + 0 * pair, in both halves.
  static __device__ uint32_t add_zero_times(uint32_t sum, uint32_t pair) {
    asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(pair), "r"(0));
    return sum;
  }

  /// c += a b, fp32 accumulators.
  static __device__ void mma_m16n8k8(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(b));
  }
  /// The same; sm_80.
  static __device__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

template <>
struct Element<__nv_bfloat16> {
  static __device__ uint32_t pack(float low, float high) {
    uint32_t result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
  }
  static __device__ float2 unpack(uint32_t pair) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)};
  }
  static constexpr uint32_t kExponentMask = 0x7F80;
  static __device__ uint32_t add_zero_times(uint32_t sum, uint32_t pair) {
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(pair), "r"(0));
    return sum;
  }

  static __device__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

}  // namespace strobe::cuda
