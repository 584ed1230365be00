// Averages of checkpoints, and which checkpoints fit together.
#include "nmt/average.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include "model_fixture.h"
#include "nmt/checkpoint.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "train/checkpoint.h"

namespace strobe::nmt {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Vocabulary vocabulary(const std::string& letters) {
  std::vector<std::string> sentences;
  for (const char a : letters) {
    for (const char b : letters) sentences.push_back(std::string{a, b, ' ', b, a, a});
  }
  return Vocabulary::train({sentences.begin(), sentences.end()}, {20, "bpe", 1.0, "identity"});
}

const Vocabularies& vocabularies() {
  static const Vocabularies both{vocabulary("abcdef"), vocabulary("uvwxyz")};
  return both;
}

ModelConfig config_of(const Variant& variant = {}) {
  ModelConfig config = small_config(variant);
  config.source_vocabulary = vocabularies().source.size();
  config.target_vocabulary = vocabularies().target.size();
  config.encoder_layers = config.decoder_layers = 1;
  return config;
}

train::Dict content_of(const ModelConfig& config, uint64_t seed, const Vocabularies& both = vocabularies()) {
  train::Dict content = describe(config, both, BleuTokenizer::kZh);
  content["model"] = train::module_state(*seeded_model(config, seed));
  content["trainer"] = "what a run keeps besides";
  return content;
}

struct Files {
  std::filesystem::path write(const std::string& name, const train::Dict& content) const {
    train::save_checkpoint(folder / name, content);
    return folder / name;
  }
  TemporaryFolder folder;
};

std::string refusal(const std::vector<std::filesystem::path>& files) {
  return message_of<train::CheckpointError>([&] { average_checkpoints(files); });
}

TEST(Average, IsTheMeanInDoubleRoundedOnce) {
  const Files files;
  const ModelConfig config = config_of({"imp_flash_attn", "post", "target"});
  std::vector<std::filesystem::path> names;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    names.push_back(files.write(std::to_string(seed) + ".pt", content_of(config, seed)));
  }
  const train::Dict result = average_checkpoints(names);
  EXPECT_FALSE(result.contains("trainer"));
  EXPECT_EQ(result.at("averaged").as_list().size(), 3u);
  for (const auto& item : seeded_model(config)->named_parameters()) {
    at::Tensor sum = item.value().detach().to(at::kDouble);  // of seed 1
    for (uint64_t seed = 2; seed <= 3; ++seed) sum = sum + seeded_model(config, seed)->named_parameters()[item.key()];
    const at::Tensor mean = result.at("model").as_dict().at(item.key()).as_tensor();
    EXPECT_TRUE(at::equal(mean, (sum / 3.0).to(at::kFloat))) << item.key();
  }
  const auto averaged = files.write("mean.pt", result);
  EXPECT_EQ(load_translation_model(averaged, at::kCPU).model->config().norm, "post");
  const train::Dict alone = average_checkpoints({averaged});
  EXPECT_TRUE(at::equal(alone.at("model").as_dict().at("generator.bias").as_tensor(),
                        result.at("model").as_dict().at("generator.bias").as_tensor()));
}

TEST(Average, RefusesWhatIsNotOneModelNamingTheFile) {
  const Files files;
  const auto first = files.write("first.pt", content_of(config_of(), 1));
  const auto with = [&](const train::Dict& content) { return refusal({first, files.write("second.pt", content)}); };
  EXPECT_THAT(with(content_of(config_of({"imp_flash_attn", "post"}), 2)),
              AllOf(HasSubstr("second.pt"), HasSubstr("first.pt: norm post, not pre")));
  ModelConfig heads = config_of();
  heads.num_heads = 2;
  EXPECT_THAT(with(content_of(heads, 2)), HasSubstr("num_heads 2, not 4"));
  EXPECT_THAT(with(content_of(config_of(), 2, {vocabularies().source, vocabularies().source})),
              AllOf(HasSubstr("its target vocabulary is not that of"), HasSubstr("piece ")));
  train::Dict odd = content_of(config_of(), 2), weights;
  for (const auto& [key, value] : odd.at("model").as_dict()) {
    weights[key] =
        std::get<std::string>(key) == "generator.bias" ? value.as_tensor().detach().narrow(0, 0, 3) : value.as_tensor();
  }
  odd["model"] = weights;
  EXPECT_THAT(with(odd), AllOf(HasSubstr("generator.bias"), HasSubstr("of shape [20], found Float of shape [3]")));
  EXPECT_THAT(refusal({first, files.folder / "none.pt"}), HasSubstr("none.pt"));
  EXPECT_THAT(message_of<Error>([] { average_checkpoints({}); }), HasSubstr("at least one"));

  train::Dict dropouts = content_of(config_of(), 2);
  ModelConfig other = config_of();
  other.dropout = 0.3;
  other.attn_type = "dotscale";
  dropouts["config"] = to_dict(other);
  EXPECT_EQ(with(dropouts), "");
}

TEST(Average, TakesTheNewestOfARun) {
  const Files files;
  for (const char* name : {"checkpoint-000090.pt", "checkpoint-000100.pt", "checkpoint-1000000.pt", "checkpoint-x.pt",
                           "last.pt", "checkpoint-000095.pt.tmp"}) {
    files.folder.write(name, "");
  }
  EXPECT_THAT(newest_checkpoints(files.folder.path(), 2),
              testing::ElementsAre(files.folder / "checkpoint-000100.pt", files.folder / "checkpoint-1000000.pt"));
  EXPECT_EQ(newest_checkpoints(files.folder.path(), 3).size(), 3u);
  EXPECT_THAT(message_of<Error>([&] { newest_checkpoints(files.folder.path(), 4); }),
              AllOf(HasSubstr("at least 4"), HasSubstr("found 3")));
  EXPECT_THAT(message_of<Error>([&] { newest_checkpoints(files.folder / "none", 1); }), HasSubstr("found 0"));
}

TEST(SameModel, VocabulariesAreComparedBySide) {
  const Files files;
  const train::Dict content = content_of(config_of(), 1);
  const auto message = [&](const ModelConfig& config, const Vocabularies& both) {
    return message_of<train::CheckpointError>(
        [&] { require_same_model(content, "some.pt", config, both, "this run"); });
  };
  EXPECT_EQ(message(config_of(), vocabularies()), "");
  EXPECT_THAT(message(config_of(), {vocabulary("abcdeg"), vocabularies().target}),
              HasSubstr("some.pt: its source vocabulary is not that of this run: piece"));
  ModelConfig larger = config_of();
  larger.d_ff = 128;
  larger.decoder_layers = 2;
  EXPECT_THAT(message(larger, vocabularies()), HasSubstr("this run: d_ff 64, not 128; decoder_layers 1, not 2"));
}

TEST(SameModel, TyingAllNeedsOneVocabulary) {
  ModelConfig config = config_of();
  config.tie_embeddings = "all";
  EXPECT_THAT(message_of<Error>([&] { require_joint_if_tied(config, vocabularies()); }),
              AllOf(HasSubstr("--joint-vocabulary"), HasSubstr("piece")));
  EXPECT_EQ(message_of<Error>([&] {
              require_joint_if_tied(config, {vocabularies().source, vocabularies().source});
            }),
            "");
}

}  // namespace
}  // namespace strobe::nmt
