// What must hold for a translation model whatever the attention: nothing leaks from the future or from padding,
// evaluation is deterministic, nothing is learnt where there is nothing to learn, and the three types are one model.
#include "nmt/transformer.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/nll_loss.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "model_fixture.h"
#include "strobe/types.h"
#include "train/optimizer.h"

namespace strobe::nmt {
namespace {

using TransformerProperties = EveryModel;
STROBE_FOR_EVERY_MODEL(TransformerProperties);

TEST_P(TransformerProperties, FutureEditsChangeNothingEarlier) {
  const c10::NoGradGuard no_grad;
  Transformer model = seeded_model(small_config(GetParam()));
  model->eval();
  Batch batch = batch_of(random_pairs(3, model->config(), 20, 5));
  const at::Tensor before = padded(model->forward(batch), batch);
  for (int64_t edited = 1; edited < batch.target_in.size(1); ++edited) {
    Batch changed = batch;
    changed.target_in = batch.target_in.clone();
    changed.target_in.select(1, edited).add_(1).remainder_(46);
    const at::Tensor after = padded(model->forward(changed), batch);
    EXPECT_TRUE(at::equal(after.narrow(1, 0, edited), before.narrow(1, 0, edited))) << "token " << edited;
    // It is read, though, by what follows, where it is no padding.
    EXPECT_FALSE(at::equal(after, before)) << "token " << edited;
  }
}

TEST_P(TransformerProperties, PaddingContentChangesNothing) {
  Transformer model = seeded_model(small_config(GetParam(), 0.0));
  const auto pairs = random_pairs(4, model->config(), 20, 6);
  Batch batch = batch_of(pairs);
  ASSERT_LT(batch.source_tokens, batch.source.numel());
  ASSERT_LT(batch.target_tokens, batch.target_in.numel());
  const auto run = [&] {
    model->zero_grad();
    const at::Tensor loss = model->loss(batch, 0.0);
    loss.backward();
    std::vector<at::Tensor> found = {loss.detach()};
    for (const at::Tensor& parameter : model->parameters()) found.push_back(parameter.grad().clone());
    return found;
  };
  const auto before = run();
  for (std::size_t b = 0; b < pairs.size(); ++b) {
    const int64_t ns = batch.source_lengths[b].item<int32_t>(), nt = batch.target_lengths[b].item<int32_t>();
    batch.source[b].narrow(0, ns, batch.source.size(1) - ns).fill_(7);
    batch.target_in[b].narrow(0, nt, batch.target_in.size(1) - nt).fill_(9);
    batch.target_out[b].narrow(0, nt, batch.target_out.size(1) - nt).fill_(11);
  }
  const auto after = run();
  const auto names = model->named_parameters().keys();
  EXPECT_TRUE(at::equal(before[0], after[0])) << "loss";
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_TRUE(at::equal(before[i + 1], after[i + 1])) << names[i];
}

TEST_P(TransformerProperties, LossIsTheSumOverSentencesAlone) {
  const c10::NoGradGuard no_grad;
  Transformer model = seeded_model(small_config(GetParam()));
  model->eval();
  const auto pairs = random_pairs(6, model->config(), 25, 7);
  double alone = 0.0;
  for (const EncodedPair& pair : pairs) alone += model->loss(batch_of({pair}), 0.1).item<double>();
  const Batch batch = batch_of(pairs);
  // fp32 rounding of a few hundred terms around ln 46.
  EXPECT_NEAR(model->loss(batch, 0.1).item<double>(), alone, 1e-6 * 4.0 * static_cast<double>(batch.target_tokens));
}

TEST_P(TransformerProperties, EvaluationIsDeterministic) {
  const c10::NoGradGuard no_grad;
  Transformer model = seeded_model(small_config(GetParam(), 0.3));
  const Batch batch = batch_of(random_pairs(3, model->config(), 20, 8));
  EXPECT_FALSE(at::equal(model->forward(batch), model->forward(batch)));  // dropout
  model->eval();
  EXPECT_TRUE(at::equal(model->forward(batch), model->forward(batch)));
}

TEST_P(TransformerProperties, EverySourceTokenIsSeenByEveryTargetToken) {
  const c10::NoGradGuard no_grad;
  Transformer model = seeded_model(small_config(GetParam()));
  model->eval();
  const Batch batch = batch_of(random_pairs(1, model->config(), 15, 9));
  const at::Tensor before = model->forward(batch);
  for (int64_t edited = 0; edited < batch.source.size(1); ++edited) {
    Batch changed = batch;
    changed.source = batch.source.clone();
    changed.source.select(1, edited).add_(1).remainder_(model->config().source_vocabulary);
    const at::Tensor same = model->forward(changed).eq(before).all(-1);
    EXPECT_FALSE(same.any().item<bool>()) << "source token " << edited;
  }
}

/// Fresh random targets tell nothing of themselves beforehand: whoever gets below ln V reads the answer.
TEST_P(TransformerProperties, RandomTargetsCannotBeLearnt) {
  ModelConfig config = small_config(GetParam(), 0.0);
  config.encoder_layers = config.decoder_layers = 1;
  Transformer model = seeded_model(config);
  train::NamedTensors parameters;
  for (const auto& item : model->named_parameters()) parameters.emplace_back(item.key(), item.value());
  train::Optimizer optimizer(parameters, train::OptimizerOptions{});
  const int64_t length = 12;
  const double entropy = std::log(static_cast<double>(config.target_vocabulary - kEosId - 1));
  double sum = 0.0;
  int64_t measured = 0;
  for (uint64_t update = 1; update <= 150; ++update) {
    std::vector<EncodedPair> pairs = random_pairs(32, config, length, 100 + update);
    std::mt19937_64 engine(update);
    for (EncodedPair& pair : pairs) {  // all of one length, so that the end says nothing either
      pair.target.assign({kBosId});
      for (int64_t i = 1; i < length; ++i) {
        pair.target.push_back(std::uniform_int_distribution<int64_t>(kEosId + 1, config.target_vocabulary - 1)(engine));
      }
    }
    const Batch batch = batch_of(pairs);
    const at::Tensor loss = model->loss(batch, 0.0);
    if (update > 100) {
      sum += loss.item<double>();
      measured += batch.target_tokens;
    }
    optimizer.clear_gradients();
    (loss / static_cast<double>(batch.target_tokens)).backward();
    optimizer.step(3e-3);
  }
  // Whatever the model says, its expected loss is at least the entropy of the uniform draw. A model near uniform has a
  // loss that varies by less than 0.5 a token, so five standard deviations are:
  const double deviation = 5 * 0.5 / std::sqrt(static_cast<double>(measured));
  EXPECT_GE(sum / static_cast<double>(measured), entropy - deviation);
  // And it has learnt what there is: which tokens occur at all.
  EXPECT_LE(sum / static_cast<double>(measured), entropy + 0.1);
}

TEST_P(TransformerProperties, StepsWithCachesEqualTheWholeSequence) {
  const c10::NoGradGuard no_grad;
  Transformer model = seeded_model(small_config(GetParam()));
  model->eval();
  const Batch batch = batch_of(random_pairs(3, model->config(), 20, 13));
  const at::Tensor whole = padded(model->forward(batch), batch);
  DecoderState state = model->start(batch.source, batch.source_lengths);
  for (int64_t t = 0; t < batch.target_in.size(1); ++t) {
    const at::Tensor error = (model->step(batch.target_in.select(1, t), state) - whole.select(1, t)).abs();
    const at::Tensor real = batch.target_lengths.gt(t).unsqueeze(1);
    // A few hundred fp32 roundings on logits of order 1.
    EXPECT_LE((error * real).max().item<double>(), 500 * 6e-8 * whole.abs().max().item<double>()) << "token " << t;
  }
}

TEST_P(TransformerProperties, DropoutHasItsPlaces) {
  const ModelConfig plain = small_config(GetParam(), 0.0);
  const Batch batch = batch_of(random_pairs(3, plain, 12, 14));
  const auto loss = [&](auto set, bool training = true) {
    ModelConfig config = plain;
    set(config);
    Transformer model = seeded_model(config);
    model->train(training);
    at::manual_seed(15);
    return model->loss(batch, 0.0).item<double>();
  };
  const double without = loss([](ModelConfig&) {});
  const std::vector<double> losses = {loss([](ModelConfig& c) { c.attention_dropout = 0.4; }),
                                      loss([](ModelConfig& c) { c.activation_dropout = 0.4; }),
                                      loss([](ModelConfig& c) { c.embedding_dropout = 0.4; }), loss([](ModelConfig& c) {
                                        c.dropout = 0.4;
                                        c.attention_dropout = c.activation_dropout = c.embedding_dropout = 0.0;
                                      })};
  for (std::size_t i = 0; i < losses.size(); ++i) {
    EXPECT_NE(losses[i], without) << i;
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(losses[i], losses[j]) << i << ", " << j;
  }
  const auto everywhere = [](ModelConfig& c) { c.dropout = 0.4; };
  EXPECT_EQ(loss(everywhere), loss([](ModelConfig& c) {
              c.dropout = 0.4;
              c.attention_dropout = c.activation_dropout = c.embedding_dropout = 0.4;
            }));
  EXPECT_EQ(loss(everywhere, /*training=*/false), loss([](ModelConfig&) {}, /*training=*/false));
}

TEST(TransformerTies, ShareOneParameter) {
  const auto names = [](const std::string& tie) {
    return seeded_model(small_config(Variant{"imp_flash_attn", "pre", tie}))->named_parameters();
  };
  EXPECT_TRUE(names("none").contains("generator.weight"));
  EXPECT_FALSE(names("target").contains("generator.weight"));
  EXPECT_TRUE(names("target").contains("decoder.embedding.tokens.weight"));
  EXPECT_FALSE(names("all").contains("decoder.embedding.tokens.weight"));
  EXPECT_TRUE(names("all").contains("encoder.embedding.tokens.weight"));
}

TEST(TransformerTies, OutliveAMove) {
  Transformer model = seeded_model(small_config(Variant{"dotscale", "post", "all"}, 0.0));
  const Batch batch = batch_of(random_pairs(2, model->config(), 12, 16));
  const double single = model->loss(batch, 0.0).item<double>();
  model->to(at::kDouble);
  EXPECT_NEAR(model->loss(batch, 0.0).item<double>(), single, 1e-5 * single);
}

TEST(TransformerLayout, FlashTypesComputeNoPadding) {
  for (const Variant& variant : {Variant{"dotscale"}, Variant{"flash_attn"}, Variant{"imp_flash_attn"}}) {
    Transformer model = seeded_model(small_config(variant));
    EXPECT_EQ(model->packs_tokens(), variant.attn_type != "dotscale");
    const Batch batch = batch_of(random_pairs(5, model->config(), 20, 17));
    EXPECT_EQ(model->forward(batch).sizes(), (at::IntArrayRef{batch.target_tokens, 46}));
  }
}

/// The loss a token, and the gradients of all parameters, of one update from one seed.
struct Update {
  double loss;
  std::vector<at::Tensor> gradients;
};

Update update_of(const ModelConfig& config) {
  Transformer model = seeded_model(config);
  const Batch batch = batch_of(random_pairs(8, config, 30, 10));
  at::manual_seed(11);
  const at::Tensor loss = model->loss(batch, 0.1);
  loss.backward();
  Update update{loss.item<double>() / static_cast<double>(batch.target_tokens), {}};
  for (const at::Tensor& parameter : model->parameters()) update.gradients.push_back(parameter.grad());
  return update;
}

void expect_alike(const Update& found, const Update& expected) {
  EXPECT_NEAR(found.loss, expected.loss, 1e-5);
  double scale = 0.0;
  for (const at::Tensor& gradient : expected.gradients) {
    scale = std::max(scale, gradient.abs().max().item<double>());
  }
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    EXPECT_LE((found.gradients[i] - expected.gradients[i]).abs().max().item<double>(), 1e-5 * scale) << i;
  }
}

/// Dropout of the probabilities is by (batch, head, row, column), the same whether tokens are packed or padded; the
/// other places draw for the elements that they have.
TEST(TransformerTypes, TrainAlike) {
  for (const char* norm : {"pre", "post"}) {
    const auto config = [&](const char* attn_type, double dropout) {
      ModelConfig result = small_config(Variant{attn_type, norm}, dropout);
      result.attention_dropout = 0.2;
      return result;
    };
    const Update padded = update_of(config("dotscale", 0.0));
    expect_alike(update_of(config("flash_attn", 0.0)), padded);
    expect_alike(update_of(config("imp_flash_attn", 0.0)), padded);
    expect_alike(update_of(config("imp_flash_attn", 0.2)), update_of(config("flash_attn", 0.2)));
  }
}

TEST(TransformerLoss, IsCrossEntropyOfTheRealTokens) {
  const c10::NoGradGuard no_grad;
  Transformer model = seeded_model(small_config("dotscale"));
  model->eval();
  const Batch batch = batch_of(random_pairs(5, model->config(), 20, 12));
  const at::Tensor logits = model->forward(batch).to(at::kDouble);
  const at::Tensor log_p = logits.log_softmax(-1);
  const at::Tensor targets = batch.target_out.masked_select(batch.target_out.ne(kPadId));
  const at::Tensor nll = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
  const at::Tensor uniform = -log_p.mean(-1);
  for (const double smoothing : {0.0, 0.1}) {
    const double expected = (nll * (1 - smoothing) + uniform * smoothing).sum().item<double>();
    EXPECT_NEAR(model->loss(batch, smoothing).item<double>(), expected, 1e-6 * expected) << smoothing;
  }
}

TEST(TransformerConfig, GoesThroughADict) {
  ModelConfig config = small_config(Variant{"flash_attn", "post", "all", "gelu"}, 0.25);
  config.encoder_layers = 3;
  config.activation_dropout = 0.05;
  const ModelConfig back = model_config(to_dict(config));
  EXPECT_EQ(back.encoder_layers, 3);
  EXPECT_EQ(back.norm, "post");
  EXPECT_EQ(back.tie_embeddings, "all");
  EXPECT_EQ(back.activation, "gelu");
  EXPECT_EQ(back.dropout, 0.25);
  EXPECT_EQ(back.attention_dropout, 0.25);
  EXPECT_EQ(back.activation_dropout, 0.05);
  EXPECT_EQ(back.attn_type, "flash_attn");
  EXPECT_EQ(back.source_vocabulary, 46);
}

TEST(TransformerConfig, OldCheckpointsHaveTheDefaults) {
  const train::Dict all = to_dict(small_config("dotscale", 0.25));
  const auto without = [&](std::initializer_list<const char*> names) {
    train::Dict dict;
    for (const auto& [key, value] : all) {
      const bool left_out = std::find(names.begin(), names.end(), std::get<std::string>(key)) != names.end();
      if (!left_out) dict[key] = value;
    }
    return dict;
  };
  const ModelConfig old = model_config(without(
      {"norm", "activation", "tie_embeddings", "attention_dropout", "activation_dropout", "embedding_dropout"}));
  EXPECT_EQ(old.norm, "pre");
  EXPECT_EQ(old.activation, "relu");
  EXPECT_EQ(old.tie_embeddings, "none");
  EXPECT_EQ(old.layer().attention_dropout, 0.25);
  EXPECT_EQ(old.embeddings_dropout(), 0.25);
  EXPECT_THROW(model_config(without({"d_model"})), train::CheckpointError);
}

TEST(TransformerConfig, UnknownEntriesAreNamed) {
  train::Dict unknown = to_dict(small_config("dotscale"));
  unknown["tied_embeddings"] = "all";
  try {
    model_config(unknown);
    FAIL() << "expected an error";
  } catch (const train::CheckpointError& error) {
    EXPECT_NE(std::string(error.what()).find("\"tied_embeddings\", nearest is \"tie_embeddings\""), std::string::npos)
        << error.what();
  }
}

TEST(TransformerConfig, RejectsWhatIsOutOfRange) {
  const auto with = [](auto set) {
    ModelConfig config = small_config("dotscale");
    set(config);
    return config;
  };
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.num_heads = 3; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.encoder_layers = 0; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.dropout = 1.0; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.attention_dropout = -0.1; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.attn_type = "flash"; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.norm = "both"; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.activation = "swish"; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.tie_embeddings = "source"; })), Error);
  EXPECT_THROW(Transformer(with([](ModelConfig& c) { c.tie_embeddings = "all"; })), Error);  // 50 and 46 pieces
}

TEST(TransformerConfig, DefaultsHaveFlashAttentionNmtsSize) {
  // 93,324,544 parameters (2 x 32000 x 512 embeddings, 512 x 32000 + 32000 generator, 6 + 6 layers, two final norms):
  // one layer of each side is built and counted six times.
  ModelConfig config;
  config.encoder_layers = config.decoder_layers = 1;
  Transformer model(config);
  const auto count = [&](const std::string& prefix) {
    int64_t elements = 0;
    for (const auto& item : model->named_parameters()) {
      if (item.key().starts_with(prefix)) elements += item.value().numel();
    }
    return elements;
  };
  EXPECT_EQ(count("") + 5 * (count("encoder.layers.0.") + count("decoder.layers.0.")), 93324544);
}

}  // namespace
}  // namespace strobe::nmt
