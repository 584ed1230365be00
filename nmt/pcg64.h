// The random numbers of NumPy's default_rng(seed), so that what is resampled here is what sacreBLEU resamples: PCG XSL
// RR 128/64 (O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms for random
// number generation"), seeded by NumPy's SeedSequence.
#pragma once

#include <cstdint>

namespace strobe::nmt {

class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed);

  uint64_t next64();
  /// Both halves of a 64-bit number in turn, the lower first.
  uint32_t next32();
  /// Uniform in 0..bound - 1 by multiplication and rejection (Lemire 2019, arXiv 1805.10941); bound 1 draws nothing.
  uint32_t below(uint32_t bound);

 private:
  __extension__ using Word = unsigned __int128;
  void advance();

  Word state_ = 0;
  Word increment_ = 0;
  uint32_t upper_half_ = 0;
  bool has_upper_half_ = false;
};

}  // namespace strobe::nmt
