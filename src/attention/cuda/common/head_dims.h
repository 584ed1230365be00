// The native head dims, for each of which the kernels are compiled. A call takes the smallest that holds its own.
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace strobe::cuda {

inline constexpr std::array kCompiledHeadDims{STROBE_CUDA_HEAD_DIMS};  // what the build asks for, ascending

/// What `make` gives for each of them, as std::integral_constant, in their order.
template <class Make>
constexpr auto of_each_head_dim(const Make& make) {
  return [&]<std::size_t... kIndices>(std::index_sequence<kIndices...>) {
    return std::array{make(std::integral_constant<int, kCompiledHeadDims[kIndices]>())...};
  }
  (std::make_index_sequence<kCompiledHeadDims.size()>());
}

/// The place in that order of the one that a call takes; one beyond the last where it is wider than all.
constexpr std::size_t head_dim_place(int head_dim) {
  std::size_t place = 0;
  while (place < kCompiledHeadDims.size() && kCompiledHeadDims[place] < head_dim) ++place;
  return place;
}

}  // namespace strobe::cuda
