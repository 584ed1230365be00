// Products of a warpgroup, warp by warp, and stores of fragments: matrix descriptors and layouts of PTX ISA 9.0,
// "Asynchronous Warpgroup Level Matrix Instructions".
#include "src/attention/cuda/sm90/wgmma.cuh"

#include "src/attention/cuda/common/ptx.cuh"
#include "src/attention/cuda/sm90/stores.cuh"

namespace strobe::cuda {
namespace {

constexpr int kK = 16, kWarpRows = 16, kMostColumns = 256;

/// The element of an operand in shared memory, 128-byte swizzle: `line` is the index that moves by rows of 128 bytes,
/// `column` the one along them.
template <class T>
float element(uint64_t descriptor, int line, int column) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4; };
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) throw emulator::EmulationError("wgmma: not this swizzle");
  const uint32_t address = field(0) + static_cast<uint32_t>(line / 8) * field(32) +
                           static_cast<uint32_t>(line % 8 * 128 + column % 64 * 2) +
                           static_cast<uint32_t>(column / 64) * field(16);
  uint16_t bits;
  std::memcpy(&bits, emulator::shared_at(address ^ (address >> 7 & 7) << 4, 2), 2);
  return to_float(T{}, bits);
}

}  // namespace

template <class T>
void multiply(WgmmaProduct product) {
  emulator::meet("wgmma", &product, [](emulator::LaneArguments lanes) {
    const auto& of = [&](int lane) -> const WgmmaProduct& { return *static_cast<const WgmmaProduct*>(lanes[lane]); };
    const WgmmaProduct& all = of(0);
    const int first_row = static_cast<int>(threadIdx.x) / emulator::kWarpSize % 4 * kWarpRows;
    float left[kWarpRows][kK], right[kK][kMostColumns];
    for (int i = 0; i < kWarpRows; ++i) {
      for (int k = 0; k < kK; ++k) {
        const int m = first_row + i;
        if (all.fragment == nullptr) {
          left[i][k] = all.transposed_a ? element<T>(all.a, k, m) : element<T>(all.a, m, k);
        } else {
          const float2 pair = Element<T>::unpack(of(i % 8 * 4 + k % 8 / 2).fragment[i / 8 + k / 8 * 2]);
          left[i][k] = k % 2 == 0 ? pair.x : pair.y;
        }
      }
    }
    for (int k = 0; k < kK; ++k) {
      for (int n = 0; n < all.tiles * 8; ++n) {
        right[k][n] = all.transposed_b ? element<T>(all.b, k, n) : element<T>(all.b, n, k);
      }
    }
    for (int i = 0; i < kWarpRows; ++i) {
      float sums[kMostColumns] = {};
      for (int k = 0; k < kK; ++k) {
        for (int n = 0; n < all.tiles * 8; ++n) sums[n] += left[i][k] * right[k][n];
      }
      for (int n = 0; n < all.tiles * 8; ++n) {
        float& to = of(i % 8 * 4 + n % 8 / 2).c[n / 8][i / 8 * 2 + n % 2];
        to = (all.accumulate ? to : 0.0f) + sums[n];
      }
    }
  });
}

void stmatrix_x4(uint32_t address, const uint32_t (&r)[4]) {
  struct Store {
    uint32_t address;
    const uint32_t* from;
  } store{address, r};
  emulator::meet("stmatrix", &store, [](emulator::LaneArguments lanes) {
    const auto of = [&](int lane) -> const Store& { return *static_cast<const Store*>(lanes[lane]); };
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
        unsigned char* const row = emulator::shared_at(of(matrix * 8 + lane / 4).address, 16);
        std::memcpy(row + lane % 4 * 4, &of(lane).from[matrix], 4);
      }
    }
  });
}

template void multiply<__half>(WgmmaProduct product);
template void multiply<__nv_bfloat16>(WgmmaProduct product);

}  // namespace strobe::cuda
