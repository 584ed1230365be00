"""PyTorch's nn.Transformer as a peer of `strobe bench nmt`: trains the same model on the same batches.

As fast as nn.Transformer trains without rewriting it: batch first, scaled_dot_product_attention inside, the causal hint,
masks made once, only real tokens projected to the vocabulary, and the fused optimiser.
"""

import math

import torch
from torch.nn import functional

from workload import parse, serve


class Model(torch.nn.Module):
    def __init__(self, config, positions, norm_eps):
        super().__init__()
        width = config["d_model"]
        self.source = torch.nn.Embedding(config["source_vocabulary"], width)
        self.target = torch.nn.Embedding(config["target_vocabulary"], width)
        self.transformer = torch.nn.Transformer(
            width, config["num_heads"], config["encoder_layers"], config["decoder_layers"], config["d_ff"],
            config["dropout"], config["activation"], layer_norm_eps=norm_eps, batch_first=True, norm_first=True)
        self.generator = torch.nn.Linear(width, config["target_vocabulary"])
        self.dropout = torch.nn.Dropout(config["dropout"])
        self.scale = math.sqrt(width)
        self.register_buffer("positions", positions)

    def embed(self, embedding, ids):
        return self.dropout(embedding(ids) * self.scale + self.positions[:ids.shape[1]])

    def loss(self, batch):
        hidden = self.transformer(
            self.embed(self.source, batch["source"]), self.embed(self.target, batch["target_in"]),
            tgt_mask=batch["causal"], tgt_is_causal=True, src_key_padding_mask=batch["source_padding"],
            tgt_key_padding_mask=batch["target_padding"], memory_key_padding_mask=batch["source_padding"])
        logits = self.generator(hidden.flatten(0, 1)[batch["real"]])
        return functional.cross_entropy(logits, batch["real_targets"], reduction="sum")

    def load(self, weights):
        """From our names to nn.Transformer's."""
        parts = {"source": "encoder.embedding.tokens", "target": "decoder.embedding.tokens", "generator": "generator",
                 "self_attn.out_proj": "self_attention.out", "multihead_attn.out_proj": "cross_attention.out",
                 "linear1": "feed_forward.hidden", "linear2": "feed_forward.out", "norm1": "self_attention_norm",
                 "norm2": "feed_forward_norm", "norm": "norm"}
        decoder_parts = {**parts, "norm2": "cross_attention_norm", "norm3": "feed_forward_norm"}
        state = {"positions": self.positions}
        for name in self.state_dict().keys() - state.keys():
            words = name.removeprefix("transformer.").split(".")
            prefix = ".".join(words[:3]) + "." if "layers" in words else words[0] + "." if words[1] == "norm" else ""
            path, kind = name.removeprefix("transformer.").removeprefix(prefix).rsplit(".", 1)
            ours = decoder_parts if prefix.startswith("decoder") else parts
            if path == "self_attn":
                state[name] = weights[f"{prefix}self_attention.qkv.{kind.removeprefix('in_proj_')}"]
            elif path == "multihead_attn":
                kind = kind.removeprefix("in_proj_")
                state[name] = torch.cat([weights[f"{prefix}cross_attention.{part}.{kind}"] for part in ("q", "kv")])
            else:
                state[name] = weights[f"{prefix}{ours[path]}.{kind}"]
        self.load_state_dict(state)


def prepare(batch, device):
    """Masks in the form that the attention needs at last, so that no step converts them."""
    result = {name: batch[name].to(device) for name in ("source", "target_in")}

    def padding(ids, lengths):
        hidden = torch.arange(ids.shape[1]) >= lengths[:, None]
        return torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf).to(device)

    length = batch["target_in"].shape[1]
    targets = batch["target_out"].flatten()
    real = (torch.arange(length) < batch["target_lengths"][:, None]).flatten().nonzero().squeeze(1)
    result["source_padding"] = padding(batch["source"], batch["source_lengths"])
    result["target_padding"] = padding(batch["target_in"], batch["target_lengths"])
    result["causal"] = torch.nn.Transformer.generate_square_subsequent_mask(length, device=device)
    result["real"], result["real_targets"] = real.to(device), targets[real].to(device)
    return result


class Trainer:
    def __init__(self, workload, device):
        self.device = torch.device(device)
        config = workload["config"]
        if (config["norm"], config["tie_embeddings"]) != ("pre", "none"):
            raise SystemExit("nn_transformer.py: written for pre-norm models without tied embeddings")
        self.model = Model(config, workload["positions"], workload["norm_eps"])
        self.model.load(workload["model"])
        self.model.to(self.device)
        self.cases = [[prepare(batch, device) for batch in case["batches"]] for case in workload["train"]]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=workload["lr"], betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True)
        self.precision = {"fp32": None, "bf16": torch.bfloat16}[workload["precision"]]

    def forward(self, batch):
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            return self.model.loss(batch)

    def loss(self, case):
        """Summed over the case, without dropout and updates."""
        self.model.eval()
        with torch.no_grad():
            return {"loss": sum(self.forward(batch).item() for batch in self.cases[case])}

    def train(self, case):
        self.model.train()
        for batch in self.cases[case]:
            self.optimizer.zero_grad()
            (self.forward(batch) / len(batch["real"])).backward()
            self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return {}


def main():
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    trainer = Trainer(torch.load(arguments.workload, weights_only=True), arguments.device)
    serve({"torch": torch.__version__}, {"loss": trainer.loss, "train": trainer.train})


if __name__ == "__main__":
    main()
