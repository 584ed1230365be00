#include "nmt/graphed_loss.h"

#include <utility>

#include "nmt/recurring_batch.h"

namespace strobe::nmt {
namespace {

constexpr int64_t kLargeTokens = 16384;  // on both sides; from there on an H200 computes longer than the host launches

}  // namespace

GraphedLoss::GraphedLoss(Transformer model, double label_smoothing)
    : model_(std::move(model)), label_smoothing_(label_smoothing), graphs_(model_->parameters()) {}

at::Tensor GraphedLoss::operator()(const Batch& batch) {
  if (batch.source.numel() + batch.target_in.numel() > kLargeTokens) return model_->loss(batch, label_smoothing_);
  const train::StepGraphs::Shape shape = {batch.source.size(0), batch.source.size(1), batch.target_in.size(1),
                                          batch.source_real.slots.size(0), batch.target_real.slots.size(0)};
  return graphs_.loss(shape, memory_of(batch), [&](const std::vector<at::Tensor>& memory) {
    return model_->loss(in_memory(batch, memory), label_smoothing_);
  });
}

}  // namespace strobe::nmt
