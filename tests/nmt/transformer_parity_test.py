"""The translation model against Python's torch.nn.Transformer(norm_first=True) with the same weights.

STROBE_NMT_TRANSFORMER_TOOL names the program built from transformer_parity_tool.cpp. The oracle is nn.Transformer in
float64. Every logit, loss and gradient may err at most 3 times as much as nn.Transformer itself does in float32, plus a
few units in the last place of the largest element (a float32 result may be exact by luck).
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
        self.transformer = torch.nn.Transformer(
            d, config["num_heads"], config["encoder_layers"], config["decoder_layers"], config["d_ff"], dropout=0.0,
            layer_norm_eps=1e-6, batch_first=True, norm_first=True)
        self.generator = torch.nn.Linear(d, config["target_vocabulary"])
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
        whole("decoder.embedding.tokens", self.target)
        whole("generator", self.generator)
        for side, stack in (("encoder", self.transformer.encoder), ("decoder", self.transformer.decoder)):
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


@pytest.mark.parametrize("attn_type", ["dotscale", "flash_attn", "imp_flash_attn"])
def test_everything_equals_nn_transformer(attn_type, tmp_path):
    file = tmp_path / "parity.pt"
    subprocess.run([TOOL, attn_type, file], check=True)
    found = torch.load(file, weights_only=True)
    exact, single = run(found, torch.float64), run(found, torch.float32)
    ours = {"logits": found["logits"], "loss": found["loss"], "plain_loss": found["plain_loss"]}
    ours.update({f"gradient of {name}": gradient for name, gradient in found["gradients"].items()})
    assert set(ours) == set(exact)
    real = torch.arange(exact["logits"].shape[1]) < found["batch"]["target_lengths"][:, None]
    for name, reference in exact.items():
        mine, theirs = ours[name].double(), single[name].double()
        if name == "logits":
            mine, theirs, reference = mine[real], theirs[real], reference[real]
        error = (mine - reference).abs().max().item()
        allowed = 3 * (theirs - reference).abs().max().item() + 16 * 2**-24 * reference.abs().max().item()
        assert error <= allowed, f"{name}: error {error:.3g}, nn.Transformer's allows {allowed:.3g}"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
