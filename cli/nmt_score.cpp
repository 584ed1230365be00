#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/nmt_options.h"
#include "cli/text_input.h"
#include "nmt/checkpoint.h"
#include "nmt/score.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path model = "experiment/model.pth";
  std::filesystem::path input;
  std::string attn_type;
  bool per_token = false, normalize = false;
  nmt::ScoreOptions score;
  RunOptions run;
};

// So many batches are read before the first is scored: enough to put sentences of one length together.
constexpr int64_t kBatchesAtOnce = 16;

std::string line_of(const std::vector<double>& tokens, const Arguments& arguments) {
  if (arguments.per_token) {
    std::string line;
    for (const double token : tokens)
      fmt::format_to(std::back_inserter(line), "{}{:.6f}", line.empty() ? "" : " ", token);
    return line;
  }
  const double sum = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  return fmt::format("{:.6f}", arguments.normalize ? sum / static_cast<double>(tokens.size()) : sum);
}

void run(const Arguments& arguments) {
  const at::Device device = arguments.run.start();
  nmt::ScoreOptions options = arguments.score;
  options.precision = arguments.run.precision_on(device);
  nmt::TranslationModel model = nmt::load_translation_model(arguments.model, device, arguments.attn_type);
  TextInput input(arguments.input);
  const int64_t count = kBatchesAtOnce * options.batch.sentences;
  std::size_t number = 0;  // of the line
  for (auto lines = input.read(count); !lines.empty(); lines = input.read(count)) {
    std::vector<nmt::SentencePair> pairs;
    for (const std::string& line : lines) pairs.push_back(nmt::parse_pair(line, ++number));
    const std::vector<nmt::EncodedPair> encoded = nmt::encode_pairs(pairs, model.vocabularies);
    for (const std::vector<double>& tokens : nmt::token_log_probabilities(model.model, encoded, options)) {
      std::cout << line_of(tokens, arguments) << '\n';
    }
    std::cout.flush();
  }
}

}  // namespace

void add_nmt_score(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "score", "Log-probabilities that a model gives to translations: lines of source, tab, target");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--model", a->model, "a checkpoint that `nmt train` wrote")->capture_default_str();
  command->add_option("--input", a->input, "a file to score, instead of standard input");
  CLI::Option* per_token =
      command->add_flag("--per-token", a->per_token,
                        "a natural logarithm for each target piece and the end of sentence, instead of their sum");
  command->add_flag("--normalize", a->normalize, "divide the sum by the number of pieces, the end of sentence counted")
      ->excludes(per_token);
  command->add_option("--batch-size", a->score.batch.sentences, "sentences a batch at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-tokens", a->score.batch.max_tokens, "tokens a batch at most on either side; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_attn_type(*command, a->attn_type);
  a->run.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
