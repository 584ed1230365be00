"""A training step of transformers' models by attn_implementation, eager, sdpa and strobe: nothing else differs, nothing is compiled.

    python bench/transformers_step.py --json FILE

Chinese-CLIP ViT-B/16 at the published batch, and a decoder with grouped heads whose batch is padded on neither side, on the right and
on the left. Forward, backward and AdamW with fp16 autocast and a gradient scaler; weights and tokens are random.
"""

import argparse
import json
import statistics
import time

import strobe
import torch
import transformers
from transformers import ChineseCLIPConfig, ChineseCLIPModel, ChineseCLIPPreTrainedModel, LlamaConfig, LlamaForCausalLM
from transformers.models.chinese_clip.modeling_chinese_clip import ChineseCLIPVisionAttention

# Its attention goes through transformers' common interface; all that lacks for sdpa is to say so, and that it is not causal.
ChineseCLIPPreTrainedModel._supports_sdpa = True
ChineseCLIPVisionAttention.is_causal = False

IMPLEMENTATIONS = ("eager", "sdpa", "strobe")
WARMUPS = 3


def lengths(batch, shortest, longest):
    return torch.randint(shortest, longest + 1, (batch,), generator=torch.Generator().manual_seed(1))


def tokens(kept, vocab_size):
    ids = torch.randint(1000, vocab_size, kept.shape, generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids * kept, "attention_mask": kept.long()}


def chinese_clip(batch, small):
    """Texts of 52 tokens, padded on the right as its tokenizer does."""
    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if small else {}
    config = ChineseCLIPConfig(text_config=dict(vocab_size=21128, **sizes), vision_config=dict(patch_size=16, **sizes))
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    kept = torch.arange(52) < lengths(batch, 5, 52)[:, None]
    return ChineseCLIPModel, config, {"pixel_values": images, "return_loss": True, **tokens(kept, 21128)}


def decoder(padding, batch, small):
    sizes = dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=8)
    if small:
        sizes = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    seqlen = 64 if small else 2048
    places, longest = torch.arange(seqlen), lengths(batch, seqlen // 4, seqlen)[:, None]
    kept = {"none": places >= 0 * longest, "right": places < longest, "left": places >= seqlen - longest}[padding]
    inputs = tokens(kept, 32000)
    return LlamaForCausalLM, LlamaConfig(**sizes, vocab_size=32000, use_cache=False), {
        **inputs, "labels": inputs["input_ids"].masked_fill(~kept, -100)}


class Step:
    def __init__(self, model_class, config, inputs, implementation, device):
        torch.manual_seed(0)
        config._attn_implementation = implementation
        with torch.device(device):
            self.model = model_class(config)
        self.inputs = {name: value.to(device) if torch.is_tensor(value) else value for name, value in inputs.items()}
        self.device = torch.device(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type)

    def forward(self):
        with torch.autocast(self.device.type, dtype=torch.float16 if self.device.type == "cuda" else torch.bfloat16):
            return self.model(**self.inputs).loss

    def loss(self):
        """In evaluation mode, so without dropout: what the implementations have to agree on."""
        self.model.eval()
        with torch.no_grad():
            return self.forward().item()

    def run(self):
        self.optimizer.zero_grad()
        self.scaler.scale(self.forward()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, repetitions, steps):
        """Milliseconds of a step, one for each repetition."""
        self.model.train()
        settled = False
        while not settled:  # updates are skipped, and cheaper, while gradients overflow
            scale = self.scaler.get_scale()
            for _ in range(WARMUPS):
                self.run()
            settled = self.scaler.get_scale() >= scale
        times = []
        for _ in range(repetitions):
            self.synchronize()
            start = time.perf_counter()
            for _ in range(steps):
                self.run()
            self.synchronize()
            times.append((time.perf_counter() - start) / steps * 1e3)
        return times


def row(name, parts, implementation, arguments):
    on_gpu = arguments.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = Step(*parts, implementation, arguments.device)
    result = {"model": name, "attn_implementation": implementation, "loss": step.loss()}
    times = step.measure(arguments.repetitions, arguments.steps)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return result | {"ms": statistics.median(times), "ms_min": min(times), "ms_max": max(times), "peak_gib": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="models and batches that a CPU runs in seconds")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    strobe.register()
    clip_batch, decoder_batch = (4, 2) if arguments.small else (450, 8)
    models = {f"Chinese-CLIP ViT-B/16, batch {clip_batch}": chinese_clip(clip_batch, arguments.small)}
    for padding in ("none", "right", "left"):
        models[f"decoder, padding {padding}"] = decoder(padding, decoder_batch, arguments.small)
    rows = []
    for name, parts in models.items():
        for implementation in IMPLEMENTATIONS:
            rows.append(row(name, parts, implementation, arguments))
            print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "strobe": strobe.__version__}
        with open(arguments.json, "w") as file:
            json.dump({"device": device, "versions": versions, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
