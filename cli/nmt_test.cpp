#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/nmt_options.h"
#include "cli/options.h"
#include "nmt/experiment.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path model = "experiment/model.pth";
  std::filesystem::path data = "data";
  std::filesystem::path output;
  std::string attn_type;
  std::string part = "test";
  std::string bleu_tokenize = "auto";
  nmt::TranslateOptions translate;
  RunOptions run;
};

void run(const Arguments& arguments) {
  const at::Device device = arguments.run.start();
  nmt::TranslateOptions options = arguments.translate;
  options.precision = arguments.run.precision_on(device);
  nmt::TranslationModel model = nmt::load_translation_model(arguments.model, device, arguments.attn_type);
  if (arguments.bleu_tokenize != "auto") model.bleu_tokenizer = nmt::bleu_tokenizer(arguments.bleu_tokenize);
  const nmt::Part part = arguments.part == "dev" ? nmt::Part::kDev : nmt::Part::kTest;
  const nmt::Dataset data = nmt::load_dataset(arguments.data, part, model.vocabularies);
  const nmt::Evaluation evaluation = nmt::evaluate(model, data, options);
  const std::filesystem::path output =
      arguments.output.empty() ? arguments.model.parent_path() / "output.txt" : arguments.output;
  nmt::write_output(output, data, evaluation.hypotheses);
  std::printf("%s\n%s\n%s\n", nmt::test_line(evaluation).c_str(), evaluation.bleu.text().c_str(),
              evaluation.bleu.signature.c_str());
}

}  // namespace

void add_nmt_test(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("test", "Loss and BLEU of a model on the test set");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--model", a->model, "a checkpoint that `nmt train` wrote")->capture_default_str();
  command->add_option("--data", a->data, "the folder that `nmt prepare` wrote")->capture_default_str();
  command->add_option("--output", a->output, "where the translations go; without it output.txt beside the model");
  command->add_option("--part", a->part, "of the data")->check(one_of({"test", "dev"}))->capture_default_str();
  command->add_option("--bleu-tokenize", a->bleu_tokenize, "sacreBLEU's tokenizer; auto: the training's")
      ->check(one_of({"auto", "zh", "13a", "char", "none"}))
      ->capture_default_str();
  add_translate_options(*command, a->attn_type, a->translate, a->run);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
