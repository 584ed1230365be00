// Tiles of 16-bit elements in shared memory: where an element stands, how rows come from global memory, and how
// fragments of mma.m16n8k16 are read.
#pragma once

#include <numeric>

#include "src/attention/cuda/common/ptx.cuh"

namespace strobe::cuda {

inline constexpr int kChunkElements = 8;  // of the 16 bytes that cp.async and one row of ldmatrix move
inline constexpr int kChunkBytes = 16;

/// Rows of kColumns elements (a multiple of 16), without padding. The chunks of a row are permuted by an exclusive or
/// with a function of the row, so that the 8 rows of a matrix of ldmatrix, which stand at the same chunk, fall into 8
/// different groups of 4 banks: a row is kChunks groups long, so rows come back to the same group after 8 /
/// gcd(kChunks, 8) of them, and the permutation has to tell gcd(kChunks, 8) rows apart.
template <int kColumns>
struct TileLayout {
  static_assert(kColumns % 16 == 0);
  static constexpr int kChunks = kColumns / kChunkElements;
  static constexpr int kRowBytes = kColumns * 2;
  static constexpr int kPhases = std::gcd(kChunks, 8);
  static constexpr int kRowsPerPhase = 8 / kPhases;

  static __device__ constexpr int phase(int row) { return row / kRowsPerPhase % kPhases; }
  /// In bytes.
  static __device__ constexpr uint32_t offset(int row, int chunk) {
    return static_cast<uint32_t>(row * kRowBytes + (chunk ^ phase(row)) * kChunkBytes);
  }
  static constexpr int bytes(int rows) { return rows * kRowBytes; }
};

/// How the lanes of a warp point at the four matrices of a fragment. In every case the fragment's first row is a
/// multiple of 8 and its first chunk is even.
enum class Fragment {
  kA,       // A[m][k], stored as it is: rows m, 16 x 16
  kATrans,  // A[m][k], stored as [k][m]
  kB,       // B[k][n] of two n8 tiles, stored as [n][k]: registers 0, 1 and 2, 3
  kBTrans,  // B[k][n] of two n8 tiles, stored as it is: rows k
};

/// A lane's address into a tile for one kind of fragment. kAligned: the tile begins at a multiple of 128 bytes, so that
/// where rows do as well, the permutation can be done on the address as a whole.
template <int kColumns, Fragment kKind, bool kAligned = false>
class FragmentReader {
  using Layout = TileLayout<kColumns>;

 public:
  /// `first_row`: added to the rows of every load; a multiple of 8.
  __device__ FragmentReader(uint32_t tile, int lane, int first_row = 0) {
    constexpr bool kRowsFirst = kKind == Fragment::kA || kKind == Fragment::kBTrans;
    const int row = kRowsFirst ? lane % 16 : lane % 8 + lane / 16 * 8;
    const int chunk = kRowsFirst ? lane / 16 : lane / 8 % 2;
    row_ = tile + static_cast<uint32_t>((first_row + row) * Layout::kRowBytes);
    chunk_ = static_cast<uint32_t>((chunk ^ Layout::phase(row)) * kChunkBytes);
    if constexpr (kWholeLines) row_ += chunk_;
  }

  /// The fragment whose first stored row and column are these: multiples of 8 and 16, best known at compile time.
  __device__ void load(uint32_t (&r)[4], int row, int column) const {
    const int chunk = column / kChunkElements;
    // The permutation is within 8 chunks: the rest of the address is a constant of the instruction.
    const auto constant = static_cast<uint32_t>(row * Layout::kRowBytes + chunk / 8 * 8 * kChunkBytes);
    const auto within = static_cast<uint32_t>(chunk % 8 * kChunkBytes);
    const uint32_t address = kWholeLines ? (row_ ^ within) + constant : row_ + constant + (within ^ chunk_);
    if constexpr (kKind == Fragment::kA || kKind == Fragment::kB) {
      ldmatrix_x4(r, address);
    } else {
      ldmatrix_x4_trans(r, address);
    }
  }

 private:
  static constexpr bool kWholeLines = kAligned && Layout::kRowBytes % (8 * kChunkBytes) == 0;
  uint32_t row_, chunk_;
};

/// Rows of a matrix in global memory, and which of them count.
struct RowSource {
  const void* data;    // row 0
  int64_t row_stride;  // elements
  int begin, end;      // rows outside become zeros and are not read
  int head_dim;        // columns beyond become zeros and are not read

  __device__ bool has(int row, int chunk) const {
    return chunk * kChunkElements < head_dim && row >= begin && row < end;
  }
};

/// Which chunks of a tile a thread of a block copies: one of every kStep-th row.
template <int kRows, int kColumns, int kThreads>
struct TileChunks {
  static constexpr int kChunks = TileLayout<kColumns>::kChunks, kStep = kThreads / kChunks;
  static constexpr int kCount = (kRows + kStep - 1) / kStep;  // at most
  static_assert(kStep > 0);

  /// Calls body(i, row, chunk) for the i-th of them.
  template <class Body>
  static __device__ void for_each(int thread, const Body& body) {
    const int thread_row = thread / kChunks;
    if (kThreads % kChunks != 0 && thread_row >= kStep) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = i * kStep + thread_row;
      if (kRows % kStep != 0 && row >= kRows) break;
      body(i, row, thread % kChunks);
    }
  }
};

/// Starts the copy of rows [first, first + kRows) to a tile in a Layout. All kThreads threads take part; each has one
/// chunk of every kStep-th row, so that its address moves by the same distance from row to row.
template <int kRows, int kColumns, int kThreads, class Layout = TileLayout<kColumns>>
__device__ inline void copy_tile_async(uint32_t tile, const RowSource& source, int first, int thread) {
  using Chunks = TileChunks<kRows, kColumns, kThreads>;
  const int thread_row = thread / Chunks::kChunks, thread_chunk = thread % Chunks::kChunks;
  const auto* from = static_cast<const uint16_t*>(source.data) +
                     static_cast<int64_t>(first + thread_row) * source.row_stride + thread_chunk * kChunkElements;
  Chunks::for_each(thread, [&](int, int row, int chunk) {
    const bool valid = source.has(first + row, chunk);
    cp_async_16(tile + Layout::offset(row, chunk), valid ? from : source.data, valid);
    from += Chunks::kStep * source.row_stride;
  });
}

/// Two n8 accumulators of a row of C side by side are an A fragment of the next product: the layouts of mma agree.
template <class T>
__device__ inline void accumulators_to_a(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = Element<T>::pack(left[0], left[1]);
  a[1] = Element<T>::pack(left[2], left[3]);
  a[2] = Element<T>::pack(right[0], right[1]);
  a[3] = Element<T>::pack(right[2], right[3]);
}

/// Which element of an m16n8 accumulator a lane's four are: rows row() and row() + 8, columns column() and + 1.
__device__ inline int accumulator_row(int lane) { return lane / 4; }
__device__ inline int accumulator_column(int lane) { return lane % 4 * 2; }

inline constexpr float kLog2E = 1.4426950408889634f;

/// Over the four lanes that hold a row of an accumulator.
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

}  // namespace strobe::cuda
