#include "nmt/score.h"

#include <ATen/ops/cross_entropy_loss.h>

#include <string>

#include "nmt/eval_mode.h"
#include "nmt/text.h"
#include "strobe/types.h"

namespace strobe::nmt {

std::vector<std::vector<double>> token_log_probabilities(Transformer& model, const std::vector<EncodedPair>& pairs,
                                                         const ScoreOptions& options) {
  const EvalModeGuard eval(*model);
  const at::Device device = model->parameters().front().device();
  const train::AutocastGuard autocast(device.type(), options.precision);
  std::vector<std::vector<double>> results(pairs.size());
  for (const std::vector<int64_t>& indices : sorted_batches(pairs, options.batch)) {
    const Batch batch = make_batch(pairs, indices, device);
    const at::Tensor logits = model->forward(batch).to(at::kFloat);
    const at::Tensor losses =
        at::cross_entropy_loss(logits, batch.target_real.of(batch.target_out), /*weight=*/{}, at::Reduction::None)
            .cpu();
    const float* row = losses.const_data_ptr<float>();
    for (const int64_t index : indices) {
      const std::size_t tokens = pairs[index].target.size() - 1;  // all but bos
      for (std::size_t t = 0; t < tokens; ++t) results[index].push_back(-static_cast<double>(row[t]));
      row += tokens;
    }
  }
  return results;
}

SentencePair parse_pair(std::string_view line, std::size_t number) {
  const auto fail = [&](const char* expected, const char* found) {
    throw Error("score: line " + std::to_string(number) + ": expected " + expected + ", found " + found);
  };
  if (!is_valid_utf8(line)) fail("UTF-8", "other bytes");
  const std::size_t tab = line.find('\t');
  if (tab == std::string_view::npos) fail("source, tab, target", "no tab");
  const std::string_view target = line.substr(tab + 1);
  return {std::string(line.substr(0, tab)), std::string(target.substr(0, target.find('\t')))};
}

}  // namespace strobe::nmt
