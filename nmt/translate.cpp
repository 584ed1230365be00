#include "nmt/translate.h"

#include "nmt/dataset.h"
#include "nmt/text.h"

namespace strobe::nmt {

std::vector<NBest> search_all(Transformer& model, const std::vector<EncodedPair>& pairs,
                              const TranslateOptions& options) {
  const at::Device device = model->parameters().front().device();
  const train::AutocastGuard autocast(device.type(), options.precision);
  std::vector<EncodedPair> sources;
  sources.reserve(pairs.size());
  for (const EncodedPair& pair : pairs) sources.push_back({pair.source, {}});
  std::vector<NBest> results(pairs.size());
  for (const std::vector<int64_t>& indices : sorted_batches(sources, options.batch)) {
    const Batch batch = make_batch(sources, indices, device);
    std::vector<NBest> found = search(model, batch.source, batch.source_lengths, options.search);
    for (std::size_t i = 0; i < indices.size(); ++i) results[indices[i]] = std::move(found[i]);
  }
  return results;
}

Translations translate(TranslationModel& model, const std::vector<std::string>& lines,
                       const TranslateOptions& options) {
  Translations result;
  result.lines.resize(lines.size(), {Translation{}});
  std::vector<EncodedPair> pairs;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!is_valid_utf8(lines[i])) {
      result.invalid_utf8.push_back(i);
    } else if (!trim(lines[i]).empty()) {
      pairs.push_back({encode_sentence(model.vocabularies.source, lines[i]), {}});
      places.push_back(i);
    }
  }
  const std::vector<NBest> found = search_all(model.model, pairs, options);
  for (std::size_t i = 0; i < places.size(); ++i) {
    std::vector<Translation>& translations = result.lines[places[i]];
    translations.clear();
    for (const Hypothesis& hypothesis : found[i]) {
      translations.push_back(
          {model.vocabularies.target.decode(hypothesis.ids), hypothesis.score, hypothesis.log_probability});
    }
  }
  return result;
}

}  // namespace strobe::nmt
