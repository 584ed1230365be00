// `strobe bench roofline`: what this device can do at best, memory and matrix products, as the ceilings that other
// measurements are shares of (Williams, Waterman & Patterson 2009, "Roofline").
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "bench/measure.h"

namespace strobe::bench {

struct RooflineOptions {
  at::Device device = at::kCPU;
  int64_t bytes = 0;                   // of each tensor of the memory tests
  std::vector<int64_t> sizes;          // n of products [n, n] x [n, n]
  std::vector<at::ScalarType> dtypes;  // of the products
  Budget budget;
};

/// What `strobe bench roofline` measures where nothing else is asked for.
RooflineOptions roofline_options(at::Device device);

/// The least that gives ceilings for products of these dtypes: a few seconds.
RooflineOptions quick_roofline_options(at::Device device, std::vector<at::ScalarType> dtypes);

struct RooflineRow {
  enum class Kind { kMemory, kProduct };
  Kind kind = Kind::kMemory;
  std::string name;  // "copy": a = b, on the CPU memcpy on all threads; "triad": a = b + 2 c in fp32 (McCalpin's
                     // STREAM); "mm": ATen's product; "linear": our linear layer's, which on the CPU may be another
                     // library's
  at::ScalarType dtype = at::kFloat;
  int64_t size = 0;  // bytes of a tensor, or n
  ContenderResult::Status status = ContenderResult::Status::kMeasured;
  std::string why;         // where it cannot run
  std::vector<double> ms;  // one a repetition

  double work() const;  // bytes read and written, or operations, 2 n^3
  double rate() const;  // the work a second at the median
};

std::vector<RooflineRow> bench_roofline(const RooflineOptions& options);

/// The best rates of the rows that were measured.
struct Ceilings {
  double bytes_per_s = 0;                        // 0: not known
  std::map<at::ScalarType, double> flops_per_s;  // of products, by dtype

  double flops(at::ScalarType dtype) const;  // 0: not known
};
Ceilings ceilings(const std::vector<RooflineRow>& rows);

}  // namespace strobe::bench
