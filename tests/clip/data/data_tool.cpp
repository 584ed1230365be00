// For the Python tests of this folder: a list of requests as JSON on stdin, a list of answers on stdout.
#include <nlohmann/json.hpp>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "clip/data/base64.h"
#include "clip/data/csv.h"
#include "clip/data/dataset.h"
#include "clip/data/loader.h"
#include "clip/data/pair_record.h"
#include "clip/data/sampler.h"

namespace {

using nlohmann::json;
using namespace strobe::clip;
using strobe::train::Value;

json to_json(const Value& value) {
  if (value.is_none()) return nullptr;
  if (const auto* truth = std::get_if<bool>(&value.data)) return *truth;
  if (const auto* number = std::get_if<int64_t>(&value.data)) return *number;
  if (const auto* number = std::get_if<double>(&value.data)) return *number;
  return value.as_string();
}

Value to_value(const json& value) {
  if (value.is_null()) return {};
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  return value.get<std::string>();
}

json to_json(const Pair& pair) { return {to_json(pair.image_id), to_json(pair.text_id), pair.text}; }

json sampler(const json& request) {
  const Sampler sampler({request["samples"], request["batch"], request["world"], request["seed"], request["epoch"]});
  json ranks = json::array();
  for (int64_t rank = 0; rank < request["world"]; ++rank) {
    json order = json::array();
    const int64_t count = sampler.padded_size() / request["world"].get<int64_t>();
    for (int64_t i = 0; i < count; ++i) order.push_back(sampler.sample(sampler.padded_index(rank, i)));
    ranks.push_back(order);
  }
  return ranks;
}

json pairs(const PairDataset& data) {
  json out = json::array();
  for (int64_t i = 0; i < data.num_pairs(); ++i) {
    const Pair pair = data.pair(i);
    json item = to_json(pair);
    item.push_back(encode_base64(data.image(pair)));
    out.push_back(item);
  }
  return {{"pairs", out}, {"images", data.num_images()}};
}

json images(const ImageDataset& data) {
  json out = json::array();
  for (int64_t i = 0; i < data.size(); ++i) out.push_back({data.key(i), encode_base64(data.image(i))});
  return {{"images", out}, {"claimed", data.claimed_size()}};
}

LoaderOptions loader_options(const json& request) {
  LoaderOptions options;
  options.resolution = request["resolution"];
  options.context_length = 8;
  options.workers = request["workers"];
  options.batches_ahead = request["ahead"];
  return options;
}

std::string bytes_of(const at::Tensor& tensor) {
  return encode_base64({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()});
}

/// A text's bytes, so that no vocabulary is needed. Texts that begin with "!" are broken.
int32_t tokenize(const std::string& text, int64_t* ids) {
  if (text.starts_with("!?")) throw std::runtime_error("the tokenizer fell over");
  if (text.starts_with("!")) throw strobe::Error("the text cannot be tokenized");
  for (std::size_t i = 0; i < 8; ++i) ids[i] = i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  return static_cast<int32_t>(std::min<std::size_t>(text.size(), 8));
}

json load_pairs(const json& request) {
  const PairDataset data(request["folder"].get<std::string>());
  PairLoaderOptions options;
  static_cast<LoaderOptions&>(options) = loader_options(request);
  options.batch_size = request["batch"];
  options.rank = request["rank"];
  options.world_size = request["world"];
  options.seed = request["seed"];
  options.epoch = request["epoch"];
  options.start_batch = request["start"];
  options.augment = request["augment"];
  json skips = json::array(), batches = json::array();
  PairLoader loader(data, tokenize, options, [&](const std::string& key, const std::string& why) {
    skips.push_back({key, why});
  });
  const int64_t limit = request["limit"];
  while (static_cast<int64_t>(batches.size()) != limit) {
    const std::optional<PairBatch> batch = loader.next();
    if (!batch) break;
    batches.push_back({{"samples", batch->samples},
                       {"images", bytes_of(batch->images)},
                       {"texts", bytes_of(batch->texts)},
                       {"lengths", bytes_of(batch->lengths)}});
  }
  return {{"batches", batches},
          {"skips", skips},
          {"skipped", loader.num_skipped()},
          {"num_batches", loader.num_batches()},
          {"num_samples", loader.num_samples()}};
}

json load_images(const json& request) {
  const ImageDataset data(request["folder"].get<std::string>());
  ImageLoaderOptions options;
  static_cast<LoaderOptions&>(options) = loader_options(request);
  options.batch_size = request["batch"];
  json skips = json::array(), batches = json::array();
  ImageLoader loader(data, options, [&](const std::string& key, const std::string& why) {
    skips.push_back({key, why});
  });
  while (const std::optional<ImageBatch> batch = loader.next()) {
    batches.push_back({{"keys", batch->keys}, {"images", bytes_of(batch->images)}});
  }
  return {{"batches", batches}, {"skips", skips}};
}

json answer(const json& request) {
  const std::string op = request["op"];
  if (op == "sampler") return sampler(request);
  if (op == "decode_base64") {
    const auto bytes = decode_base64(request["text"].get<std::string>());
    return bytes ? json(encode_base64(*bytes)) : json();
  }
  if (op == "write_pair") {
    return encode_base64(write_pair({to_value(request["image"]), to_value(request["id"]), request["text"]}));
  }
  if (op == "read_pair") {
    const Pair pair = read_pair(decode_base64(request["pickle"].get<std::string>()).value());
    json out = to_json(pair);
    out.push_back(id_text(pair.image_id));
    return out;
  }
  if (op == "pairs") return pairs(PairDataset(request["folder"].get<std::string>()));
  if (op == "images") return images(ImageDataset(request["folder"].get<std::string>()));
  if (op == "load_pairs") return load_pairs(request);
  if (op == "load_images") return load_images(request);
  if (op == "texts") {
    json out = json::array();
    for (const TextRecord& record : read_texts(request["file"].get<std::string>())) {
      out.push_back({to_json(record.text_id), record.text});
    }
    return out;
  }
  if (op == "csv") {
    CsvReader csv(request["file"].get<std::string>());
    json out = json::array();
    for (std::vector<std::string> fields; csv.next(fields);) out.push_back(fields);
    return out;
  }
  throw std::invalid_argument(op);
}

}  // namespace

int main() {
  json answers = json::array();
  for (const json& request : json::parse(std::cin)) {
    try {
      answers.push_back({{"value", answer(request)}});
    } catch (const strobe::Error& error) {
      answers.push_back({{"error", error.what()}});
    } catch (const std::runtime_error& error) {
      answers.push_back({{"exception", error.what()}});
    }
  }
  std::cout << answers.dump();
}
