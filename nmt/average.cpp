#include "nmt/average.h"

#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>

#include "nmt/checkpoint.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;

const train::Dict& weights_of(const train::Dict& content) { return content.at(std::string("model")).as_dict(); }

std::string name_of(const train::DictKey& key) {
  const auto* name = std::get_if<std::string>(&key);
  return name != nullptr ? *name : std::to_string(std::get<int64_t>(key));
}

std::string form_of(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.scalar_type() << " of shape " << tensor.sizes();
  return text.str();
}

/// Throws where `weights` are not named and formed as the first file's.
void require_same_form(const train::Dict& weights, const train::Dict& first, const std::string& origin) {
  for (const auto& [key, value] : first) {
    const train::Value* found = weights.find(key);
    if (found == nullptr) throw train::CheckpointError(origin + ": the weight " + name_of(key) + " is missing");
    const std::string expected = form_of(value.as_tensor()), form = form_of(found->as_tensor());
    if (form != expected) {
      throw train::CheckpointError(origin + ": the weight " + name_of(key) + ": expected " + expected + ", found " +
                                   form);
    }
  }
  for (const auto& [key, value] : weights) {
    if (!first.contains(key)) throw train::CheckpointError(origin + ": an unexpected weight " + name_of(key));
  }
}

/// The number in checkpoint-<number>.pt, or -1.
int64_t update_of(const fs::path& file) {
  const std::string name = file.filename().string();
  constexpr std::string_view kStart = "checkpoint-", kEnd = ".pt";
  if (!name.starts_with(kStart) || !name.ends_with(kEnd)) return -1;
  const std::string digits = name.substr(kStart.size(), name.size() - kStart.size() - kEnd.size());
  const bool is_number = !digits.empty() && digits.size() <= 18 &&
                         std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  return is_number ? std::stoll(digits) : -1;
}

}  // namespace

train::Dict average_checkpoints(const std::vector<fs::path>& files) {
  if (files.empty()) throw Error("average: expected at least one checkpoint, found none");
  const train::Dict first = load_translation_checkpoint(files.front());
  const ModelConfig config = model_config(first.at(std::string("config")).as_dict());
  const Vocabularies vocabularies = checkpoint_vocabularies(files.front());
  std::vector<std::pair<train::DictKey, at::Tensor>> sums;
  for (const auto& [key, value] : weights_of(first)) {
    sums.emplace_back(key, at::zeros_like(value.as_tensor(), at::dtype(at::kDouble)));
  }
  train::List names;
  for (const fs::path& file : files) {
    const train::Dict content = load_translation_checkpoint(file);
    require_same_model(content, file, config, vocabularies, files.front().string());
    require_same_form(weights_of(content), weights_of(first), file.string());
    for (auto& [key, sum] : sums) sum.add_(weights_of(content).at(key).as_tensor());
    names.emplace_back(file.string());
  }
  train::Dict result, mean;
  for (auto& [key, sum] : sums) {
    mean[key] = sum.div_(static_cast<double>(files.size())).to(weights_of(first).at(key).as_tensor().scalar_type());
  }
  for (const char* name : {"task", "config", "source_vocabulary", "target_vocabulary", "bleu_tokenize"}) {
    result[std::string(name)] = first.at(std::string(name));
  }
  result["averaged"] = names;
  result["model"] = mean;
  return result;
}

std::vector<fs::path> newest_checkpoints(const fs::path& folder, int64_t count) {
  std::vector<fs::path> files;
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (update_of(entry.path()) >= 0) files.push_back(entry.path());
    }
  }
  if (static_cast<int64_t>(files.size()) < count) {
    throw Error("average: expected at least " + std::to_string(count) + " files checkpoint-*.pt in \"" +
                folder.string() + "\", found " + std::to_string(files.size()) +
                "; `strobe nmt train --keep-last` keeps them");
  }
  std::sort(files.begin(), files.end(),
            [](const fs::path& a, const fs::path& b) { return update_of(a) < update_of(b); });
  return {files.end() - count, files.end()};
}

}  // namespace strobe::nmt
