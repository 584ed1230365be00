// Translation as a training task: what validation may touch, what a batch counts, what a checkpoint holds.
#include "nmt/training_task.h"

#include <ATen/Context.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include "model_fixture.h"
#include "nmt/evaluate.h"
#include "nmt/experiment.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "train/checkpoint.h"
#include "train/device.h"

namespace strobe::nmt {
namespace {

using testing::HasSubstr;

Vocabulary vocabulary_of(const std::vector<SentencePair>& texts, bool target) {
  std::vector<std::string_view> sentences;
  for (const SentencePair& text : texts) sentences.push_back(target ? text.target : text.source);
  VocabularyOptions options;
  options.size = 40;
  if (target) options.normalization = "identity";
  return Vocabulary::train(sentences, options);
}

/// "one two" -> "一二", every two and three words of six.
struct Words {
  Words() {
    const std::vector<std::pair<std::string, std::string>> words = {{"one", "一"},  {"two", "二"},  {"three", "三"},
                                                                    {"four", "四"}, {"five", "五"}, {"six", "六"}};
    for (const auto& a : words) {
      for (const auto& b : words) {
        data.texts.push_back({a.first + " " + b.first, a.second + b.second});
        for (const auto& c : words) {
          data.texts.push_back({a.first + " " + b.first + " " + c.first, a.second + b.second + c.second});
        }
      }
    }
    vocabularies = {vocabulary_of(data.texts, false), vocabulary_of(data.texts, true)};
    data.pairs = encode_pairs(data.texts, vocabularies);
  }
  TranslationModel model() const {
    ModelConfig config = small_config("imp_flash_attn", 0.2);
    config.source_vocabulary = vocabularies.source.size();
    config.target_vocabulary = vocabularies.target.size();
    return {seeded_model(config), vocabularies, BleuTokenizer::kZh};
  }
  Dataset data;
  Vocabularies vocabularies;
};

const Words& words() {
  static const Words instance;
  return instance;
}

TrainingTaskOptions task_options() {
  TrainingTaskOptions options;
  options.batch = {.sentences = 16, .max_tokens = 0};
  options.validation.search = {.beam = 2, .max_length = 12};
  return options;
}

TEST(TrainingTask, ValidationTouchesNothing) {
  TranslationModel model = words().model();
  TrainingTask task(model, words().data, words().data, task_options());
  task.model().train();
  std::vector<at::Tensor> before;
  for (const at::Tensor& parameter : task.model().parameters()) before.push_back(parameter.detach().clone());
  const at::Tensor random = train::random_state(at::kCPU).at("cpu").as_tensor().clone();
  const train::Validation first = task.validate(), second = task.validate();
  EXPECT_EQ(first.loss, second.loss);
  EXPECT_EQ(first.score, second.score);
  EXPECT_GT(first.loss, 0.0);
  EXPECT_TRUE(task.model().is_training());
  EXPECT_TRUE(at::equal(train::random_state(at::kCPU).at("cpu").as_tensor(), random));
  const auto after = task.model().parameters();
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(at::equal(after[i], before[i]));
    EXPECT_FALSE(after[i].grad().defined());
  }
}

TEST(TrainingTask, ValidationLossIsThatOfAllTokens) {
  TranslationModel model = words().model();
  TrainingTask task(model, words().data, words().data, task_options());
  model.model->eval();
  const Batch all = batch_of(words().data.pairs);
  const double expected = model.model->loss(all, 0.0).item<double>() / static_cast<double>(all.target_tokens);
  EXPECT_NEAR(task.validate().loss, expected, 1e-5 * expected);
}

TEST(TrainingTask, BatchesCountEveryTokenOnce) {
  TrainingTask task(words().model(), words().data, words().data, task_options());
  int64_t count = 0, source = 0;
  const int64_t batches = task.begin_epoch(1);
  for (int64_t i = 0; i < batches; ++i) {
    const train::BatchLoss loss = task.forward(i);
    EXPECT_EQ(loss.loss_sum.dim(), 0);
    EXPECT_EQ(loss.slots - loss.padding, loss.count + loss.source_tokens);
    count += loss.count;
    source += loss.source_tokens;
  }
  int64_t expected_count = 0, expected_source = 0;
  for (const EncodedPair& pair : words().data.pairs) {
    expected_count += static_cast<int64_t>(pair.target.size()) - 1;
    expected_source += static_cast<int64_t>(pair.source.size());
  }
  EXPECT_EQ(count, expected_count);
  EXPECT_EQ(source, expected_source);
}

TEST(TrainingTask, RejectsWhatIsOutOfRange) {
  TrainingTaskOptions options = task_options();
  options.label_smoothing = 1.0;
  EXPECT_THROW(TrainingTask(words().model(), words().data, words().data, options), Error);
  options = task_options();
  options.validation.search.beam = 0;
  EXPECT_THROW(TrainingTask(words().model(), words().data, words().data, options), Error);
}

/// What the trainer writes.
train::Dict checkpoint_of(const TranslationModel& model) {
  train::Dict content = describe(model.model->config(), model.vocabularies, model.bleu_tokenizer);
  content["model"] = train::module_state(*model.model);
  return content;
}

TEST(TranslationCheckpoint, TranslatesAlone) {
  const TemporaryFolder folder;
  TranslationModel model = words().model();
  train::save_checkpoint(folder / "model.pth", checkpoint_of(model));
  TranslateOptions options;
  options.search.max_length = 8;
  const std::vector<std::string> lines = {"one two", "", "six six six", " \t", "four", "bad \xff", "two"};
  const auto best = [](const Translations& translations) {
    std::vector<std::string> texts;
    for (const auto& list : translations.lines) texts.push_back(list.front().text);
    return texts;
  };
  const Translations translations = translate(model, lines, options);
  const std::vector<std::string> expected = best(translations);
  EXPECT_THAT(translations.invalid_utf8, testing::ElementsAre(5));
  for (const std::size_t i : {1, 3, 5}) EXPECT_EQ(expected[i], "");
  for (const char* attn_type : {"", "dotscale", "flash_attn"}) {
    TranslationModel loaded = load_translation_model(folder / "model.pth", at::kCPU, attn_type);
    EXPECT_FALSE(loaded.model->is_training());
    EXPECT_EQ(loaded.bleu_tokenizer, BleuTokenizer::kZh);
    EXPECT_EQ(best(translate(loaded, lines, options)), expected) << attn_type;
  }
}

TEST(TranslationCheckpoint, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const TranslationModel model = words().model();
  const auto message = [&](const train::Dict& content) {
    train::save_checkpoint(folder / "model.pth", content);
    return message_of<train::CheckpointError>([&] { load_translation_model(folder / "model.pth", at::kCPU); });
  };
  train::Dict content = checkpoint_of(model);
  content["task"] = "clip";
  EXPECT_THAT(message(content), HasSubstr("no translation model"));
  content = checkpoint_of(model);
  content["target_vocabulary"] = train::Value(content.at("model").as_dict().at("generator.bias").as_tensor().detach());
  EXPECT_THAT(message(content), HasSubstr("target vocabulary"));
  ModelConfig larger = model.model->config();
  larger.target_vocabulary += 1;
  content = checkpoint_of(model);
  content["config"] = to_dict(larger);
  EXPECT_THAT(message(content), testing::AllOf(HasSubstr("model.pth"), HasSubstr("pieces")));
  larger = model.model->config();
  larger.d_ff *= 2;
  content["config"] = to_dict(larger);
  EXPECT_THAT(message(content), HasSubstr("feed_forward.hidden.weight"));
}

TEST(Experiment, ChoosesTheTokenizerByTheTargets) {
  EXPECT_EQ(guess_tokenizer(words().data), BleuTokenizer::kZh);
  Dataset german;
  german.texts = {{"one", "eins"}, {"two", "zwei"}, {"three", "三"}};
  EXPECT_EQ(guess_tokenizer(german), BleuTokenizer::k13a);
}

TEST(Experiment, OutputHasFlashAttentionNmtsForm) {
  const TemporaryFolder folder;
  Dataset data;
  data.texts = {{"one", "一"}, {"two", "二"}};
  write_output(folder / "output.txt", data, {"甲", ""});
  EXPECT_EQ(folder.read("output.txt"), "idx:0一|||甲\nidx:1二|||\n");
  EXPECT_THAT(folder.names(), testing::ElementsAre("output.txt"));
}

}  // namespace
}  // namespace strobe::nmt
