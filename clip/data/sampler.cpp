#include "clip/data/sampler.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randperm.h>
#include <fmt/format.h>

#include "strobe/types.h"

namespace strobe::clip {

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  if (options.num_samples < 1 || options.batch_size < 1 || options.world_size < 1) {
    throw Error(fmt::format("sampler: expected samples, a batch size and a world size, found {}, {} and {}",
                            options.num_samples, options.batch_size, options.world_size));
  }
  const int64_t global = options.batch_size * options.world_size;
  const int64_t padded = (options.num_samples + global - 1) / global * global;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(options.seed + static_cast<uint64_t>(options.epoch));
  const at::Tensor order = at::randperm(padded, generator, at::dtype(at::kLong));
  order_.assign(order.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>() + padded);
}

int64_t Sampler::padded_index(int64_t rank, int64_t position) const {
  return order_.at(static_cast<std::size_t>(position * options_.world_size + rank));
}

int64_t Sampler::substitute(int64_t rank, int64_t position, int64_t attempt) const {
  const int64_t own = position * options_.world_size + rank;
  return order_[static_cast<std::size_t>((own + padded_size() / 2 + attempt - 1) % padded_size())];
}

}  // namespace strobe::clip
