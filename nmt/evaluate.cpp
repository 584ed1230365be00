#include "nmt/evaluate.h"

#include "nmt/eval_mode.h"
#include "nmt/text.h"

namespace strobe::nmt {
namespace {

double mean_loss(Transformer& model, const std::vector<EncodedPair>& pairs, const TranslateOptions& options) {
  const EvalModeGuard eval(*model);
  const at::Device device = model->parameters().front().device();
  const train::AutocastGuard autocast(device.type(), options.precision);
  double sum = 0.0;
  int64_t tokens = 0;
  for (const std::vector<int64_t>& indices : sorted_batches(pairs, options.batch)) {
    const Batch batch = make_batch(pairs, indices, device);
    sum += model->loss(batch, /*label_smoothing=*/0.0).item<double>();
    tokens += batch.target_tokens;
  }
  return tokens > 0 ? sum / static_cast<double>(tokens) : 0.0;
}

}  // namespace

Evaluation evaluate(TranslationModel& model, const Dataset& data, const TranslateOptions& options) {
  Evaluation evaluation;
  evaluation.loss = mean_loss(model.model, data.pairs, options);
  const std::vector<NBest> found = search_all(model.model, data.pairs, options);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const bool blank = trim(data.texts[i].source).empty();
    evaluation.hypotheses.push_back(blank ? "" : model.vocabularies.target.decode(found[i].front().ids));
  }
  std::vector<std::string> references;
  for (const SentencePair& text : data.texts) references.push_back(text.target);
  evaluation.bleu = corpus_bleu(evaluation.hypotheses, references, model.bleu_tokenizer);
  return evaluation;
}

}  // namespace strobe::nmt
