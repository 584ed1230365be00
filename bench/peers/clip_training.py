"""What the peers of `strobe bench clip` have in common: one training step of Chinese-CLIP around a model of their own.

A model is a torch module: (pixel values [B, 3, R, R], ids [B, L], mask [B, L]) -> the contrastive loss. Its parameter
`logit_scale` is clamped after each update, as Chinese-CLIP does.
"""

import math
import time

import torch

from workload import parse, serve

LARGEST_LOGIT_SCALE = math.log(100)
NOT_DECAYED = ("bn", "ln", "bias", "logit_scale")  # Chinese-CLIP's rule, by its names of the parameters
WEIGHT_DECAY = 0.001


def contrastive_loss(logits_per_image):
    targets = torch.arange(len(logits_per_image), device=logits_per_image.device)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits_per_image, targets) + cross_entropy(logits_per_image.t(), targets)) / 2


class Trainer:
    def __init__(self, workload, model, device, fused, compiled, channels_last):
        self.device = torch.device(device)
        self.precision = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[workload["precision"]]
        self.model = model.to(self.device)
        # As a user would who knows what Hopper's tensor cores want.
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.format)
        self.images, self.ids = self.inputs(workload)
        self.mask = (self.ids != 0).long()
        decayed = {name for name, _ in model.named_parameters() if not any(part in name for part in NOT_DECAYED)}
        groups = [{"params": [p for n, p in model.named_parameters() if (n in decayed) == decays],
                   "weight_decay": WEIGHT_DECAY if decays else 0.0} for decays in (False, True)]
        self.optimizer = torch.optim.AdamW(groups, lr=workload["lr"], betas=(0.9, 0.98), eps=1e-6, fused=fused or None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.compiled = torch.compile(self.model) if compiled else self.model

    def inputs(self, workload):
        mean, std = (torch.tensor(workload[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        images = (workload["images"].permute(0, 3, 1, 2).float() / 255 - mean) / std
        return images.to(self.device).contiguous(memory_format=self.format), workload["ids"].to(self.device)

    def forward(self, model):
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            return model(self.images, self.ids, self.mask)

    def loss(self):
        """In evaluation mode."""
        self.model.eval()
        with torch.no_grad():
            return {"loss": self.forward(self.model).item()}

    def step(self):
        self.optimizer.zero_grad()
        self.scaler.scale(self.forward(self.compiled)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, warmups, repetitions, steps):
        """Milliseconds of a step, one for each repetition, and the most memory that tensors took."""
        self.model.train()
        for _ in range(warmups):
            self.step()
        self.synchronize()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(repetitions):
            start = time.perf_counter()
            for _ in range(steps):
                self.step()
            self.synchronize()
            times.append((time.perf_counter() - start) / steps * 1e3)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None
        return {"ms": times, "peak_gib": peak}


def main(make_model, versions, **options):
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    workload = torch.load(arguments.workload, weights_only=True)
    on_gpu = arguments.device == "cuda"
    options = {name: value and on_gpu for name, value in options.items()}
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as cn_clip's training program has it
    trainer = Trainer(workload, make_model(workload), arguments.device, **options)
    serve({"torch": torch.__version__, **versions}, {"loss": trainer.loss, "measure": trainer.measure})
