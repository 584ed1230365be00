// What the architectures of these kernels differ in: the way of a tile from global to shared memory and the shape of a
// product. A copy is started, and its data is there for the block after finish(), wait() and a barrier.
#pragma once

#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/mma/kernels.h"
#include "src/attention/cuda/sm75/config.h"
#include "src/attention/cuda/sm80/config.h"

namespace strobe::cuda {

/// cp.async, which passes by the registers, and mma.m16n8k16.
struct Sm80 : Sm80Config {
  template <int kColumns, int kRows>
  using Layout = TileLayout<kColumns>;

  template <int kRows, int kColumns, int kThreads>
  class TileCopy {
   public:
    __device__ void start(uint32_t tile, const RowSource& source, int first, int thread) {
      copy_tile_async<kRows, kColumns, kThreads>(tile, source, first, thread);
    }
    __device__ void finish(int) {}
  };

  /// Of 8 bytes.
  class WordCopy {
   public:
    __device__ void start(uint32_t to, const void* from, bool valid) { cp_async_8(to, from, valid); }
    __device__ void finish() {}
  };

  static __device__ void commit() { cp_async_commit(); }
  static __device__ void wait() { cp_async_wait<0>(); }

  template <class T>
  static __device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Element<T>::mma_m16n8k16(c, a, b0, b1);
  }
};

/// Loads to registers, which go to shared memory when the copy is finished: while a tile is on its way, the one before
/// it is computed with. mma.m16n8k8: two of them are one m16n8k16, whose fragments are theirs side by side.
struct Sm75 : Sm75Config {
  template <int kColumns, int kRows>
  using Layout = TileLayout<kColumns>;

  template <int kRows, int kColumns, int kThreads>
  class TileCopy {
   public:
    __device__ void start(uint32_t tile, const RowSource& source, int first, int thread) {
      tile_ = tile;
      Chunks::for_each(thread, [&](int i, int row, int chunk) {
        const auto* from = static_cast<const uint16_t*>(source.data) + (first + row) * source.row_stride;
        data_[i] = source.has(first + row, chunk) ? reinterpret_cast<const uint4*>(from)[chunk] : uint4{0, 0, 0, 0};
      });
    }
    __device__ void finish(int thread) {
      Chunks::for_each(thread, [&](int i, int row, int chunk) {
        store_shared_128(tile_ + TileLayout<kColumns>::offset(row, chunk), data_[i]);
      });
    }

   private:
    using Chunks = TileChunks<kRows, kColumns, kThreads>;
    uint4 data_[Chunks::kCount];
    uint32_t tile_;
  };

  class WordCopy {
   public:
    __device__ void start(uint32_t to, const void* from, bool valid) {
      data_ = valid ? *static_cast<const uint2*>(from) : uint2{0, 0};
      to_ = to;
    }
    __device__ void finish() {
      if (to_ != 0) store_shared_64(to_, data_);
      to_ = 0;
    }

   private:
    uint2 data_;
    uint32_t to_ = 0;
  };

  static __device__ void commit() {}
  static __device__ void wait() {}

  template <class T>
  static __device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Element<T>::mma_m16n8k8(c, a[0], a[1], b0);
    Element<T>::mma_m16n8k8(c, a[2], a[3], b1);
  }
};

}  // namespace strobe::cuda
