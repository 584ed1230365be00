// Products of a warpgroup (four warps, the first a multiple of four) on the tensor cores of sm_90a: C[64][N] +=
// A[64][16] B[16][N], 16-bit elements, fp32 accumulators. PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix
// Instructions".
//
// Warp w of the warpgroup has the rows 16 w .. 16 w + 15; what its lanes hold of C and of an A in registers is what
// they hold in mma.m16n8k16 (accumulator_row, accumulator_column, accumulators_to_a).
//
// Order: what ordinary instructions or cp.async wrote to shared memory is read after wgmma_fence_shared() of the
// writing threads (after their wait) and a barrier. wgmma_fence() stands before the first product of a batch,
// wgmma_commit() after its last; C and an A in registers are not touched before wgmma_wait(). All four warps execute
// each of these.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "src/attention/cuda/sm90/wgmma_operand.cuh"

namespace strobe::cuda {

/// What this thread wrote to shared memory (its cp.async included that it has waited for) is there for products behind
/// the next barrier.
__device__ inline void wgmma_fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Before a batch of products: the registers are as they were written.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Keeps the compiler from moving what reads or writes registers of products across this place.
template <int kTiles>
__device__ inline void wgmma_hold(float (&c)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(c[n][e])::"memory");
  }
}
template <int kTiles>
__device__ inline void wgmma_hold(uint32_t (&a)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+r"(a[n][e])::"memory");
  }
}

/// Registers a thread from here on, a multiple of 8, for whole warpgroups: fewer than now for those that need few, then
/// more for the others, which wait until they are there.
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Waits until at most kPending of the committed batches are under way. `registers`: the accumulators and left operands
/// of those that are done.
template <int kPending, class... Registers>
__device__ inline void wgmma_wait(Registers&... registers) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  (wgmma_hold(registers), ...);
}

// The N / 2 accumulators of a lane: their numbers, and the operands.
#define STROBE_WGMMA_REGISTERS_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define STROBE_WGMMA_REGISTERS_32 \
  STROBE_WGMMA_REGISTERS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define STROBE_WGMMA_REGISTERS_48 \
  STROBE_WGMMA_REGISTERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define STROBE_WGMMA_REGISTERS_64 \
  STROBE_WGMMA_REGISTERS_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define STROBE_WGMMA_TILE(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define STROBE_WGMMA_TILES_4(n) \
  STROBE_WGMMA_TILE(n), STROBE_WGMMA_TILE(n + 1), STROBE_WGMMA_TILE(n + 2), STROBE_WGMMA_TILE(n + 3)
#define STROBE_WGMMA_TILES_8(n) STROBE_WGMMA_TILES_4(n), STROBE_WGMMA_TILES_4(n + 4)
#define STROBE_WGMMA_TILES_12(n) STROBE_WGMMA_TILES_8(n), STROBE_WGMMA_TILES_4(n + 8)
#define STROBE_WGMMA_TILES_16(n) STROBE_WGMMA_TILES_8(n), STROBE_WGMMA_TILES_8(n + 8)

// The instruction for a shape and type; o0 to o6 are the numbers of the operands behind the accumulators. First A in
// shared memory, then in registers.
#define STROBE_WGMMA_SS(shape, type, registers, tiles, o0, o1, o2, o3, o4)                                           \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " o2 ", 0; wgmma.mma_async.sync.aligned." shape ".f32." type "." type \
               " {" registers "}, " o0 ", " o1 ", p, 1, 1, " o3 ", " o4 "; }"                                        \
               : tiles                                                                                               \
               : "l"(a), "l"(b), "r"(accumulate), "n"(kTransposedA), "n"(kTransposedB))
#define STROBE_WGMMA_RS(shape, type, registers, tiles, o0, o1, o2, o3, o4, o5, o6)                                   \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " o5 ", 0; wgmma.mma_async.sync.aligned." shape ".f32." type "." type \
               " {" registers "}, {" o0 ", " o1 ", " o2 ", " o3 "}, " o4 ", p, 1, 1, " o6 "; }"                      \
               : tiles                                                                                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransposedB))

/// C = A B, or C += A B where accumulate is 1. kTransposedA, kTransposedB (0 or 1): that operand is one of k_is_row.
template <class T, int kTransposedA, int kTransposedB, int kTiles>
__device__ inline void wgmma(float (&c)[kTiles][4], uint64_t a, uint64_t b, int accumulate) {
  static_assert(kTiles == 4 || kTiles == 8 || kTiles == 12 || kTiles == 16);
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if constexpr (kTiles == 4 && kHalf)
    STROBE_WGMMA_SS("m64n32k16", "f16", STROBE_WGMMA_REGISTERS_16, STROBE_WGMMA_TILES_4(0), "%16", "%17", "%18", "%19",
                    "%20");
  if constexpr (kTiles == 4 && !kHalf)
    STROBE_WGMMA_SS("m64n32k16", "bf16", STROBE_WGMMA_REGISTERS_16, STROBE_WGMMA_TILES_4(0), "%16", "%17", "%18", "%19",
                    "%20");
  if constexpr (kTiles == 8 && kHalf)
    STROBE_WGMMA_SS("m64n64k16", "f16", STROBE_WGMMA_REGISTERS_32, STROBE_WGMMA_TILES_8(0), "%32", "%33", "%34", "%35",
                    "%36");
  if constexpr (kTiles == 8 && !kHalf)
    STROBE_WGMMA_SS("m64n64k16", "bf16", STROBE_WGMMA_REGISTERS_32, STROBE_WGMMA_TILES_8(0), "%32", "%33", "%34", "%35",
                    "%36");
  if constexpr (kTiles == 12 && kHalf)
    STROBE_WGMMA_SS("m64n96k16", "f16", STROBE_WGMMA_REGISTERS_48, STROBE_WGMMA_TILES_12(0), "%48", "%49", "%50", "%51",
                    "%52");
  if constexpr (kTiles == 12 && !kHalf)
    STROBE_WGMMA_SS("m64n96k16", "bf16", STROBE_WGMMA_REGISTERS_48, STROBE_WGMMA_TILES_12(0), "%48", "%49", "%50",
                    "%51", "%52");
  if constexpr (kTiles == 16 && kHalf)
    STROBE_WGMMA_SS("m64n128k16", "f16", STROBE_WGMMA_REGISTERS_64, STROBE_WGMMA_TILES_16(0), "%64", "%65", "%66",
                    "%67", "%68");
  if constexpr (kTiles == 16 && !kHalf)
    STROBE_WGMMA_SS("m64n128k16", "bf16", STROBE_WGMMA_REGISTERS_64, STROBE_WGMMA_TILES_16(0), "%64", "%65", "%66",
                    "%67", "%68");
}

/// The same with A in registers: fragments as of mma.m16n8k16.
template <class T, int kTransposedB, int kTiles>
__device__ inline void wgmma(float (&c)[kTiles][4], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  static_assert(kTiles == 4 || kTiles == 8 || kTiles == 12 || kTiles == 16);
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if constexpr (kTiles == 4 && kHalf)
    STROBE_WGMMA_RS("m64n32k16", "f16", STROBE_WGMMA_REGISTERS_16, STROBE_WGMMA_TILES_4(0), "%16", "%17", "%18", "%19",
                    "%20", "%21", "%22");
  if constexpr (kTiles == 4 && !kHalf)
    STROBE_WGMMA_RS("m64n32k16", "bf16", STROBE_WGMMA_REGISTERS_16, STROBE_WGMMA_TILES_4(0), "%16", "%17", "%18", "%19",
                    "%20", "%21", "%22");
  if constexpr (kTiles == 8 && kHalf)
    STROBE_WGMMA_RS("m64n64k16", "f16", STROBE_WGMMA_REGISTERS_32, STROBE_WGMMA_TILES_8(0), "%32", "%33", "%34", "%35",
                    "%36", "%37", "%38");
  if constexpr (kTiles == 8 && !kHalf)
    STROBE_WGMMA_RS("m64n64k16", "bf16", STROBE_WGMMA_REGISTERS_32, STROBE_WGMMA_TILES_8(0), "%32", "%33", "%34", "%35",
                    "%36", "%37", "%38");
  if constexpr (kTiles == 12 && kHalf)
    STROBE_WGMMA_RS("m64n96k16", "f16", STROBE_WGMMA_REGISTERS_48, STROBE_WGMMA_TILES_12(0), "%48", "%49", "%50", "%51",
                    "%52", "%53", "%54");
  if constexpr (kTiles == 12 && !kHalf)
    STROBE_WGMMA_RS("m64n96k16", "bf16", STROBE_WGMMA_REGISTERS_48, STROBE_WGMMA_TILES_12(0), "%48", "%49", "%50",
                    "%51", "%52", "%53", "%54");
  if constexpr (kTiles == 16 && kHalf)
    STROBE_WGMMA_RS("m64n128k16", "f16", STROBE_WGMMA_REGISTERS_64, STROBE_WGMMA_TILES_16(0), "%64", "%65", "%66",
                    "%67", "%68", "%69", "%70");
  if constexpr (kTiles == 16 && !kHalf)
    STROBE_WGMMA_RS("m64n128k16", "bf16", STROBE_WGMMA_REGISTERS_64, STROBE_WGMMA_TILES_16(0), "%64", "%65", "%66",
                    "%67", "%68", "%69", "%70");
}

#undef STROBE_WGMMA_REGISTERS_16
#undef STROBE_WGMMA_REGISTERS_32
#undef STROBE_WGMMA_REGISTERS_48
#undef STROBE_WGMMA_REGISTERS_64
#undef STROBE_WGMMA_TILE
#undef STROBE_WGMMA_TILES_4
#undef STROBE_WGMMA_TILES_8
#undef STROBE_WGMMA_TILES_12
#undef STROBE_WGMMA_TILES_16
#undef STROBE_WGMMA_SS
#undef STROBE_WGMMA_RS

}  // namespace strobe::cuda
