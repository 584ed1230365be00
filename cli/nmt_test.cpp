#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/nmt_options.h"
#include "cli/options.h"
#include "cli/text_input.h"
#include "nmt/bootstrap.h"
#include "nmt/experiment.h"
#include "strobe/types.h"

namespace strobe::cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  fs::path model = "experiment/model.pth";
  fs::path data = "data";
  fs::path source, reference, hypothesis, compare, output;
  std::string attn_type;
  std::string part = "test";
  std::string bleu_tokenize = "auto";
  std::vector<std::string> metrics = {"bleu", "chrf"};
  bool confidence = false;
  nmt::BootstrapOptions bootstrap;
  nmt::TranslateOptions translate;
  RunOptions run;
};

std::vector<nmt::SentencePair> paired(const fs::path& source, const fs::path& target) {
  std::vector<std::string> sources = read_text(source), targets = read_text(target);
  if (sources.size() != targets.size() || sources.empty()) {
    throw Error(fmt::format("\"{}\" and \"{}\": expected as many lines, one at least, found {} and {}", source.string(),
                            target.string(), sources.size(), targets.size()));
  }
  std::vector<nmt::SentencePair> pairs;
  for (std::size_t i = 0; i < sources.size(); ++i) pairs.push_back({std::move(sources[i]), std::move(targets[i])});
  return pairs;
}

/// A checkpoint is a zip archive.
bool is_checkpoint(const fs::path& file) {
  char start[2] = {};
  std::ifstream(file, std::ios::binary).read(start, 2);
  return start[0] == 'P' && start[1] == 'K';
}

/// One run of the command: the test set, and what its systems make of it.
class Test {
 public:
  explicit Test(const Arguments& arguments) : arguments_(arguments), device_(arguments.run.start()) {
    if (!arguments.compare.empty() && !fs::exists(arguments.compare)) {
      throw Error("--compare: expected a checkpoint or a text file, found no \"" + arguments.compare.string() + "\"");
    }
    if (arguments.hypothesis.empty()) {
      evaluate_model();
    } else {
      texts_ = paired(arguments.hypothesis, arguments.reference);
      for (nmt::SentencePair& pair : texts_) hypotheses_.push_back(std::exchange(pair.source, ""));
      tokenizer_ = nmt::guess_tokenizer(dataset());
    }
    if (arguments.bleu_tokenize != "auto") tokenizer_ = nmt::bleu_tokenizer(arguments.bleu_tokenize);
    for (const nmt::SentencePair& pair : texts_) references_.push_back(pair.target);
  }

  void print_scores() const {
    for (const std::string& name : arguments_.metrics) {
      const auto metric = nmt::metric(name, tokenizer_);
      const nmt::SentenceCounts counts = nmt::sentence_counts(*metric, hypotheses_, references_);
      const std::vector<int64_t> sums = nmt::sum(counts);
      std::string resampling, interval;
      if (arguments_.confidence) {
        const nmt::Interval found = nmt::confidence(*metric, counts, arguments_.bootstrap);
        resampling = nmt::resampling(arguments_.bootstrap);
        interval = fmt::format(" (μ = {:.2f} ± {:.2f})", found.mean, found.half_width);
      }
      const std::string detail = metric->detail(sums);
      std::cout << fmt::format("{}|{} = {:.2f}{}{}{}\n", metric->name(), nmt::signature(*metric, resampling),
                               metric->score(sums), interval, detail.empty() ? "" : " ", detail);
    }
  }

  void print_comparison() const {
    const std::vector<std::string> others = translations_of(arguments_.compare);
    const fs::path& ours = arguments_.hypothesis.empty() ? arguments_.model : arguments_.hypothesis;
    for (const std::string& name : arguments_.metrics) {
      const auto metric = nmt::metric(name, tokenizer_);
      const nmt::SentenceCounts baseline = nmt::sentence_counts(*metric, others, references_);
      const nmt::SentenceCounts system = nmt::sentence_counts(*metric, hypotheses_, references_);
      const bool same = metric->score(nmt::sum(baseline)) == metric->score(nmt::sum(system));
      const nmt::Comparison found = nmt::compare(*metric, baseline, system, arguments_.bootstrap);
      const auto line = [&](const char* role, const fs::path& file, const nmt::SentenceCounts& counts,
                            const nmt::Interval& interval) {
        return fmt::format("  {} {:.2f} ({:.2f} ± {:.2f})  {}", role, metric->score(nmt::sum(counts)), interval.mean,
                           interval.half_width, file.string());
      };
      std::cout << fmt::format("{}|{}, paired bootstrap: score (μ ± 95 % interval)\n{}\n{}\n  p = {:.4f}{}\n",
                               metric->name(), nmt::signature(*metric, nmt::resampling(arguments_.bootstrap)),
                               line("baseline", arguments_.compare, baseline, found.baseline),
                               line("system  ", ours, system, found.system), found.p_value,
                               same                   ? " (says nothing: the scores are equal)"
                               : found.p_value > 0.05 ? ""
                                                      : " (the systems differ significantly)");
    }
  }

 private:
  nmt::TranslateOptions translate_options() const {
    nmt::TranslateOptions options = arguments_.translate;
    options.precision = arguments_.run.precision_on(device_);
    return options;
  }

  nmt::Dataset dataset() const {
    nmt::Dataset data;
    data.texts = texts_;
    return data;
  }

  nmt::Dataset encoded(const nmt::TranslationModel& model) const {
    nmt::Dataset data = dataset();
    data.pairs = nmt::encode_pairs(texts_, model.vocabularies);
    return data;
  }

  void evaluate_model() {
    nmt::TranslationModel model = nmt::load_translation_model(arguments_.model, device_, arguments_.attn_type);
    const nmt::Part part = arguments_.part == "dev" ? nmt::Part::kDev : nmt::Part::kTest;
    texts_ = arguments_.source.empty() ? nmt::load_dataset(arguments_.data, part, model.vocabularies).texts
                                       : paired(arguments_.source, arguments_.reference);
    if (arguments_.bleu_tokenize != "auto") model.bleu_tokenizer = nmt::bleu_tokenizer(arguments_.bleu_tokenize);
    tokenizer_ = model.bleu_tokenizer;
    const nmt::Dataset data = encoded(model);
    nmt::Evaluation evaluation = nmt::evaluate(model, data, translate_options());
    hypotheses_ = std::move(evaluation.hypotheses);
    nmt::write_output(arguments_.output.empty() ? arguments_.model.parent_path() / "output.txt" : arguments_.output,
                      data, hypotheses_);
    std::cout << fmt::format("{}\n", nmt::test_line(evaluation));
  }

  /// A text file's lines, or what a checkpoint's model makes of the same sources.
  std::vector<std::string> translations_of(const fs::path& other) const {
    if (!is_checkpoint(other)) return read_text(other);
    if (!arguments_.hypothesis.empty()) throw Error("--compare: expected translations, as --hypothesis, found a model");
    nmt::TranslationModel model = nmt::load_translation_model(other, device_, arguments_.attn_type);
    return nmt::evaluate(model, encoded(model), translate_options()).hypotheses;
  }

  const Arguments& arguments_;
  at::Device device_;
  std::vector<nmt::SentencePair> texts_;  // without sources where translations were given
  std::vector<std::string> references_, hypotheses_;
  nmt::BleuTokenizer tokenizer_ = nmt::BleuTokenizer::kZh;
};

void run(const Arguments& arguments) {
  nmt::validate(arguments.translate.search);
  const Test test(arguments);
  test.print_scores();
  if (!arguments.compare.empty()) test.print_comparison();
}

void add_files(CLI::App& command, Arguments& a) {
  CLI::Option* model = command.add_option("--model", a.model, "a checkpoint that `nmt train` wrote");
  CLI::Option* data = command.add_option("--data", a.data, "the folder that `nmt prepare` wrote");
  model->capture_default_str();
  data->capture_default_str();
  CLI::Option* part = command.add_option("--part", a.part, "of the data");
  part->check(one_of({"test", "dev"}))->capture_default_str();
  CLI::Option* reference =
      command.add_option("--reference", a.reference, "a text file, a sentence a line, instead of --data");
  CLI::Option* source =
      command.add_option("--source", a.source, "the sentences to translate, a line for each reference");
  source->needs(reference)->excludes(data)->excludes(part);
  command.add_option("--hypothesis", a.hypothesis, "translations to score, a line for each reference, without a model")
      ->needs(reference)
      ->excludes(model)
      ->excludes(data)
      ->excludes(part)
      ->excludes(source);
  command.add_option("--compare", a.compare,
                     "the baseline of a paired bootstrap test: another checkpoint, or a file of translations");
  command.add_option("--output", a.output, "where the translations go; without it output.txt beside the model");
}

}  // namespace

void add_nmt_test(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("test", "Loss, BLEU and chrF of a model on a test set");
  const auto a = std::make_shared<Arguments>();
  add_files(*command, *a);
  command->add_option("--metrics", a->metrics, "what to measure, apart by commas")
      ->delimiter(',')
      ->check(one_of({"bleu", "chrf", "chrf++"}))
      ->capture_default_str();
  command
      ->add_option("--bleu-tokenize", a->bleu_tokenize,
                   "sacreBLEU's tokenizer; auto: the training's, or without a model zh for Chinese and else 13a")
      ->check(one_of({"auto", "zh", "13a", "char", "none"}))
      ->capture_default_str();
  command->add_flag("--confidence", a->confidence, "95 % intervals by bootstrap resampling");
  command->add_option("--bootstrap-samples", a->bootstrap.samples, "of --confidence and --compare")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--bootstrap-seed", a->bootstrap.seed, "of --confidence and --compare")->capture_default_str();
  add_translate_options(*command, a->attn_type, a->translate, a->run);
  command->callback([a] {
    if (a->source.empty() && a->hypothesis.empty() && !a->reference.empty()) {
      throw CLI::ValidationError("--reference", "expected --source or --hypothesis with it");
    }
    run(*a);
  });
}

}  // namespace strobe::cli
