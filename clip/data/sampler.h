// Which samples a rank sees in an epoch, in the order of torch's DistributedSampler(shuffle=True).
#pragma once

#include <cstdint>
#include <vector>

namespace strobe::clip {

struct SamplerOptions {
  int64_t num_samples = 0;
  int64_t batch_size = 1;  // of one rank
  int64_t world_size = 1;
  uint64_t seed = 0;
  int64_t epoch = 0;  // validation always takes 0
};

/// An epoch is padded to whole batches on every rank with the data's first samples: position p of rank r is
/// randperm(padded, Generator(seed + epoch))[p * world_size + r], modulo num_samples.
class Sampler {
 public:
  /// Throws Error where there is no sample or a size is not positive.
  explicit Sampler(const SamplerOptions& options);

  int64_t padded_size() const { return static_cast<int64_t>(order_.size()); }  // over all ranks
  int64_t num_batches() const { return padded_size() / (options_.batch_size * options_.world_size); }
  /// The padded index of a rank's position; modulo num_samples it is the sample.
  int64_t padded_index(int64_t rank, int64_t position) const;
  int64_t sample(int64_t padded_index) const { return padded_index % options_.num_samples; }

  /// What stands in where the sample at this position cannot be read, for attempt = 1, 2, ... padded_size() - 1: the
  /// samples from half an epoch further on, so that a batch does not get one of its own samples twice.
  int64_t substitute(int64_t rank, int64_t position, int64_t attempt) const;

 private:
  SamplerOptions options_;
  std::vector<int64_t> order_;
};

}  // namespace strobe::clip
