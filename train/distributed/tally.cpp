#include "train/distributed/tally.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace strobe::train {

namespace {

constexpr int64_t Tally::*kFields[] = {&Tally::signal,        &Tally::out_of_memory, &Tally::target_tokens,
                                       &Tally::source_tokens, &Tally::slots,         &Tally::padding};

at::Tensor to_tensor(const Tally& tally) {
  at::Tensor fields = at::empty({std::size(kFields)}, at::kLong);
  for (std::size_t i = 0; i < std::size(kFields); ++i) fields.mutable_data_ptr<int64_t>()[i] = tally.*kFields[i];
  return fields;
}

}  // namespace

Agreement::Agreement(const Tally& own, Communicator& communicator) : own_(own), communicator_(communicator) {
  if (communicator.size() > 1) gathering_ = communicator.begin_all_gather(to_tensor(own));
}

Tally Agreement::wait() {
  if (communicator_.size() == 1) return own_;
  const at::Tensor gathered = gathering_.wait();
  const int64_t* value = gathered.const_data_ptr<int64_t>();
  Tally all;
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const int64_t largest_signal = std::max(all.signal, *value);
    for (const auto field : kFields) all.*field += *value++;
    all.signal = largest_signal;
  }
  return all;
}

uint64_t seed_of_rank(uint64_t seed, int rank) {
  constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15;  // far from the seeds that people choose for other runs
  return seed + static_cast<uint64_t>(rank) * kGoldenRatio;
}

}  // namespace strobe::train
