"""The translation model against Python's torch.nn.Transformer with the same weights, pre- and post-norm, tied and not.

STROBE_NMT_TRANSFORMER_TOOL names the program built from transformer_parity_tool.cpp. The oracle is nn.Transformer in
float64. Every logit, loss and gradient may err at most 3 times as much as nn.Transformer itself does in float32, plus a
few units in the last place of the largest element (a float32 result may be exact by luck). Training in float64 must give
the same weights up to float64's rounding.

nn.Transformer ends both stacks with a norm for post-norm too, Vaswani et al. (2017) and our model do not: the oracle is
then nn.Transformer with stacks made with norm=None.
"""

import math
import os
import subprocess
import sys

import pytest
import torch

TOOL = os.environ["STROBE_NMT_TRANSFORMER_TOOL"]
PAD = 0


def positions(length, d_model, dtype):
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (
        torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    table = torch.zeros(length, d_model, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return table.to(dtype)


class Oracle(torch.nn.Module):
    def __init__(self, config, dtype):
        super().__init__()
        d = config["d_model"]
        self.scale = math.sqrt(d)
        self.source = torch.nn.Embedding(config["source_vocabulary"], d)
        self.target = torch.nn.Embedding(config["target_vocabulary"], d)
        shape = dict(nhead=config["num_heads"], dim_feedforward=config["d_ff"], dropout=0.0, layer_norm_eps=1e-6,
                     activation=config["activation"], batch_first=True, norm_first=config["norm"] == "pre")
        layers = {"num_encoder_layers": config["encoder_layers"], "num_decoder_layers": config["decoder_layers"]}
        if config["norm"] == "post":
            layers = {"custom_encoder": torch.nn.TransformerEncoder(
                          torch.nn.TransformerEncoderLayer(d, **shape), config["encoder_layers"],
                          norm=None, enable_nested_tensor=False),
                      "custom_decoder": torch.nn.TransformerDecoder(
                          torch.nn.TransformerDecoderLayer(d, **shape), config["decoder_layers"], norm=None)}
        self.transformer = torch.nn.Transformer(d, **shape, **layers)
        self.generator = torch.nn.Linear(d, config["target_vocabulary"])
        self.ties = config["tie_embeddings"]
        if self.ties == "all":
            self.target.weight = self.source.weight
        if self.ties != "none":
            self.generator.weight = self.target.weight
        self.to(dtype)

    def slots(self):
        """Where each of our tensors is in here: name -> function from a per-parameter choice to a tensor."""
        found = {}

        def whole(name, module):
            for part in ("weight", "bias"):
                if hasattr(module, part):
                    found[f"{name}.{part}"] = (getattr(module, part), slice(None))

        def attention(name, module, parts):
            row = 0
            for part, blocks in parts:
                rows = slice(row, row + blocks * module.embed_dim)
                found[f"{name}.{part}.weight"] = (module.in_proj_weight, rows)
                found[f"{name}.{part}.bias"] = (module.in_proj_bias, rows)
                row = rows.stop
            whole(f"{name}.out", module.out_proj)

        whole("encoder.embedding.tokens", self.source)
        if self.ties != "all":
            whole("decoder.embedding.tokens", self.target)
        whole("generator", self.generator)
        if self.ties != "none":
            del found["generator.weight"]
        for side, stack in (("encoder", self.transformer.encoder), ("decoder", self.transformer.decoder)):
            if stack.norm is not None:
                whole(f"{side}.norm", stack.norm)
            for i, layer in enumerate(stack.layers):
                name = f"{side}.layers.{i}"
                norms = ["self_attention_norm", "feed_forward_norm"]
                attention(f"{name}.self_attention", layer.self_attn, [("qkv", 3)])
                if side == "decoder":
                    norms.insert(1, "cross_attention_norm")
                    attention(f"{name}.cross_attention", layer.multihead_attn, [("q", 1), ("kv", 2)])
                for k, norm in enumerate(norms):
                    whole(f"{name}.{norm}", getattr(layer, f"norm{k + 1}"))
                whole(f"{name}.feed_forward.hidden", layer.linear1)
                whole(f"{name}.feed_forward.out", layer.linear2)
        return found

    def load(self, weights):
        slots = self.slots()
        assert set(slots) == set(weights)
        with torch.no_grad():
            for name, (parameter, rows) in slots.items():
                parameter[rows] = weights[name].to(parameter.dtype)

    def embed(self, embedding, ids):
        weight = embedding.weight
        return embedding(ids) * self.scale + positions(ids.shape[1], weight.shape[1], weight.dtype)

    def forward(self, batch):
        source, target = batch["source"], batch["target_in"]
        source_pad = torch.arange(source.shape[1]) >= batch["source_lengths"][:, None]
        causal = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        hidden = self.transformer(self.embed(self.source, source), self.embed(self.target, target), tgt_mask=causal,
                                  src_key_padding_mask=source_pad, memory_key_padding_mask=source_pad)
        return self.generator(hidden)


def run(found, dtype):
    model = Oracle(found["config"], dtype)
    model.load(found["model"])
    logits = model(found["batch"])
    targets = found["batch"]["target_out"].flatten()

    def loss(smoothing):
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=PAD, reduction="sum",
                                                 label_smoothing=smoothing)

    smoothed = loss(found["label_smoothing"])
    smoothed.backward()
    results = {"logits": logits.detach(), "loss": smoothed.detach(), "plain_loss": loss(0.0).detach()}
    for name, (parameter, rows) in model.slots().items():
        results[f"gradient of {name}"] = parameter.grad[rows]
    return results


def tool(*arguments):
    subprocess.run([TOOL, *arguments], check=True)
    return torch.load(arguments[-1], weights_only=True)


def test_post_norm_without_final_norms_is_what_nn_transformer_would_norm_once_more():
    """nn.Transformer(norm_first=False) is the oracle's model and one more norm on each side."""
    torch.manual_seed(1)
    config = dict(d_model=32, num_heads=4, d_ff=64, encoder_layers=2, decoder_layers=2, source_vocabulary=9,
                  target_vocabulary=9, norm="post", activation="relu", tie_embeddings="none")
    ours = Oracle(config, torch.float64).transformer
    plain = torch.nn.Transformer(32, 4, 2, 2, 64, 0.0, layer_norm_eps=1e-6, batch_first=True, dtype=torch.float64)
    missing = plain.load_state_dict(ours.state_dict(), strict=False)
    assert sorted(missing.missing_keys) == [f"{side}.norm.{part}" for side in ("decoder", "encoder")
                                            for part in ("bias", "weight")]
    source, target = torch.randn(2, 5, 32, dtype=torch.float64), torch.randn(2, 4, 32, dtype=torch.float64)
    memory = plain.encoder.norm(ours.encoder(source))
    torch.testing.assert_close(plain.decoder.norm(ours.decoder(target, memory)), plain(source, target))


@pytest.mark.parametrize("attn_type, norm, ties, activation", [
    ("dotscale", "pre", "none", "relu"), ("flash_attn", "pre", "none", "relu"),
    ("imp_flash_attn", "pre", "none", "relu"), ("imp_flash_attn", "post", "none", "relu"),
    ("imp_flash_attn", "pre", "target", "gelu"), ("imp_flash_attn", "pre", "all", "relu"),
    ("imp_flash_attn", "post", "target", "relu"), ("imp_flash_attn", "post", "all", "gelu")])
def test_everything_equals_nn_transformer(attn_type, norm, ties, activation, tmp_path):
    found = tool("once", attn_type, norm, ties, activation, tmp_path / "parity.pt")
    exact, single = run(found, torch.float64), run(found, torch.float32)
    ours = {"logits": found["logits"], "loss": found["loss"], "plain_loss": found["plain_loss"]}
    ours.update({f"gradient of {name}": gradient for name, gradient in found["gradients"].items()})
    assert set(ours) == set(exact)
    real = torch.arange(exact["logits"].shape[1]) < found["batch"]["target_lengths"][:, None]
    for name, reference in exact.items():
        mine, theirs = ours[name].double(), single[name].double()
        if name == "logits":
            theirs, reference = theirs[real], reference[real]
            assert mine.shape == reference.shape
        error = (mine - reference).abs().max().item()
        allowed = 3 * (theirs - reference).abs().max().item() + 16 * 2**-24 * reference.abs().max().item()
        assert error <= allowed, f"{name}: error {error:.3g}, nn.Transformer's allows {allowed:.3g}"


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("norm, ties, activation", [("pre", "none", "relu"), ("post", "all", "relu"),
                                                    ("pre", "target", "gelu")])
def test_training_in_float64_equals_torch_optim(optimizer, norm, ties, activation, tmp_path):
    found = tool("train", optimizer, norm, ties, activation, tmp_path / "trained.pt")
    model = Oracle(found["config"], torch.float64)
    model.load(found["model"])
    by_dim = [[p for p in model.parameters() if (p.dim() > 1) == matrix] for matrix in (True, False)]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    theirs = kind([{"params": by_dim[0], "weight_decay": found["weight_decay"]},
                   {"params": by_dim[1], "weight_decay": 0.0}], lr=1.0, betas=(0.9, 0.98), eps=1e-9)
    noam = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: found["factor"] * found["config"]["d_model"]**-0.5 *
                                             min((step + 1)**-0.5, (step + 1) * found["warmup"]**-1.5))
    for batch, expected in zip(found["batches"], found["losses"], strict=True):
        loss = torch.nn.functional.cross_entropy(model(batch).flatten(0, 1), batch["target_out"].flatten(),
                                                 ignore_index=PAD, label_smoothing=found["label_smoothing"])
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        noam.step()
        assert abs(loss.item() - expected) <= 1e-9
    moved = 0.0
    for name, (parameter, rows) in model.slots().items():
        assert (parameter.detach()[rows] - found["trained"][name]).abs().max().item() <= 1e-9, name
        moved = max(moved, (found["trained"][name] - found["model"][name]).abs().max().item())
    assert moved > 1e-2  # so that agreeing says something


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
