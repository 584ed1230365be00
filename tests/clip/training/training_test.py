"""Training against the original's own (cn_clip.training.train), and several processes against one.

STROBE_CLIP_TRAINING_TOOL names the program built from training_tool.cpp. Towers are tiny, in float64 and without dropout
where numbers are compared.
"""

import contextlib
import functools
import io
import logging
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import types

import cn_clip.clip.model as original
import cn_clip.training.scheduler as scheduler
import cn_clip.training.train as training
import pytest
import torch

TOOL = os.environ["STROBE_CLIP_TRAINING_TOOL"]
LIMIT = 120  # seconds
BATCH, LENGTH, VOCABULARY = 4, 8, 200
VIT = dict(width=64, layers=[2], patch_size=16, image_resolution=32)
RESNET = dict(width=8, layers=[1, 1, 1, 1], patch_size=0, image_resolution=64)


def build(vision, seed=0):
    """The original with random weights."""
    torch.manual_seed(seed)
    is_vit = vision["patch_size"] > 0
    model = original.CLIP(
        embed_dim=16, image_resolution=vision["image_resolution"],
        vision_layers=vision["layers"][0] if is_vit else vision["layers"], vision_width=vision["width"],
        vision_patch_size=vision["patch_size"] or None, vocab_size=VOCABULARY, text_attention_probs_dropout_prob=0.0,
        text_hidden_act="gelu", text_hidden_dropout_prob=0.0, text_hidden_size=64, text_initializer_range=0.02,
        text_intermediate_size=128, text_max_position_embeddings=512, text_num_attention_heads=1,
        text_num_hidden_layers=2, text_type_vocab_size=2).double()
    for module in model.modules():
        if isinstance(module, original.LayerNorm):  # its forward casts to float32
            module.forward = functools.partial(torch.nn.LayerNorm.forward, module)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def make_batches(count, vision, seed=1, size=BATCH):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        texts = torch.randint(104, VOCABULARY, (size, LENGTH), generator=generator)
        lengths = torch.randint(2, LENGTH + 1, (size, 1), generator=generator)
        texts[:, 0] = 101
        side = vision["image_resolution"]
        batches.append({"images": torch.randn(size, 3, side, side, generator=generator, dtype=torch.float64),
                        "texts": texts * (torch.arange(LENGTH) < lengths)})
    return batches


def merge(batches, count):
    """Each `count` batches as one."""
    return [{key: torch.cat([batch[key] for batch in batches[i:i + count]]) for key in batches[0]}
            for i in range(0, len(batches) - count + 1, count)]


def describe(vision):
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vision.items()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ours(model, vision, batches, options, ranks=1, **more):
    """(answer, log lines)."""
    request = {"vision": describe(vision), "options": {"batch_size": BATCH, "max_epochs": 1, "warmup": 2, **options},
               "state": {name: value.clone() for name, value in model.state_dict().items()}, "batches": batches, **more}
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("request.pt", "answer.pt")]
        torch.save(request, files[0])
        port = free_port()
        processes = []
        for rank in range(ranks):
            world = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks,
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}
            processes.append(subprocess.Popen(
                [TOOL, *files], stderr=subprocess.PIPE, text=True,
                env={**os.environ, **{name: str(value) for name, value in world.items()}}))
        logs = [process.communicate(timeout=LIMIT)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * ranks, logs
        return torch.load(files[1], weights_only=True), logs[0].splitlines()


class Wrapper(torch.nn.Module):
    """What DistributedDataParallel is to the original's loop."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *arguments):
        return self.module(*arguments)


def arguments(**changes):
    return types.SimpleNamespace(**{**dict(
        rank=0, world_size=1, local_device_rank=0, aggregate=False, gather_with_grad=False, accum_freq=1, mask_ratio=0,
        distillation=False, report_training_batch_acc=True, freeze_vision=False, precision="fp32", log_interval=1,
        val_data=None, valid_step_interval=None, should_save=False, use_flash_attention=False, vision_model="ViT-B-16",
        max_steps=100, warmup=2, wd=0.2, lr=1e-3, beta1=0.9, beta2=0.98, eps=1e-6), **changes})


class Loader(list):
    def __init__(self, batches):
        super().__init__((batch["images"], batch["texts"], torch.zeros(1)) for batch in batches)
        self.num_batches, self.num_samples = len(batches), sum(len(batch["texts"]) for batch in batches)


@contextlib.contextmanager
def on_cpu():
    """The original knows only GPUs."""
    saved = torch.Tensor.cuda, torch.nn.Module.cuda, torch.distributed.all_reduce
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.distributed.all_reduce = lambda *_, **__: None
    try:
        yield
    finally:
        torch.Tensor.cuda, torch.nn.Module.cuda, torch.distributed.all_reduce = saved


def adamw(model, args):
    """As the original's main.py makes it."""
    decays = lambda name: not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
    groups = [{"params": [p for n, p in model.named_parameters() if p.requires_grad and decays(n) == wanted],
               "weight_decay": args.wd if wanted else 0.0} for wanted in (False, True)]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)


def train_original(model, batches, valid=None, **changes):
    """(the log lines, the optimizer); the model is trained."""
    args = arguments(**changes)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | Rank 0 | %(message)s", "%Y-%m-%d,%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    optimizer = adamw(model, args)
    args.max_steps = len(batches) // args.accum_freq
    rate = scheduler.cosine_lr(optimizer, args.lr, args.warmup, args.max_steps)
    data = {"train": types.SimpleNamespace(dataloader=Loader(batches), sampler=None)}
    try:
        with on_cpu():
            wrapper = Wrapper(model)
            training.train(wrapper, data, 0, optimizer, None, rate, args, 0)
            if valid is not None:
                data["val"] = types.SimpleNamespace(dataloader=Loader(valid))
                training.evaluate(wrapper, data, 0, args, args.max_steps)
    finally:
        logging.getLogger().removeHandler(handler)
    return stream.getvalue().splitlines(), optimizer


def assert_close(found, expected, bound):
    """Every tensor within `bound` of the largest of its values."""
    assert list(found) == list(expected) or sorted(found) == sorted(expected)
    for name, value in expected.items():
        difference = (found[name].double() - value.double()).abs().max().item()
        assert difference <= bound * max(1.0, value.double().abs().max().item()), (name, difference)


def without_times(line):
    line = re.sub(r"^\d{4}-\d\d-\d\d,\d\d:\d\d:\d\d ", "", line)
    return re.sub(r"Time: \d+\.\d{3}s", "Time: T", line)


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_three_steps_and_a_validation_equal_the_originals(vision):
    model = build(vision)
    with torch.no_grad():
        model.logit_scale.fill_(4.7)  # the clamp takes it down
    batches, valid = make_batches(3, vision), make_batches(2, vision, seed=7)
    answer, lines = ours(model, vision, batches, {}, valid=valid)
    expected, optimizer = train_original(model, batches, valid)
    assert model.logit_scale.item() <= 4.6052
    assert_close(answer["state"], dict(model.state_dict()), 1e-9)
    saved = optimizer.state_dict()
    for index, slot in saved["state"].items():
        assert_close(answer["optimizer"]["state"][index], slot, 1e-9)
    for group, other in zip(saved["param_groups"], answer["optimizer"]["param_groups"]):
        assert group["params"] == other["params"]
        for key in ("lr", "betas", "eps", "weight_decay"):
            assert group[key] == pytest.approx(other[key], rel=1e-12)
    texts = [without_times(line) for line in lines]
    assert [line for line in map(without_times, expected)] == \
        [line for line in texts if "Global Steps" in line or "Begin to eval" in line or "Validation Result" in line]
    assert sum("Validation Recall (epoch 1 @ 3 steps)" in line for line in texts) == 1


def test_learning_rates():
    for warmup, steps in [(3, 8), (0, 4), (5, 5), (500, 4)]:
        batches = make_batches(steps, VIT, size=2)
        answer, _ = ours(build(VIT), VIT, batches, {"warmup": warmup, "batch_size": 2, "lr": 5e-4})
        optimizer = types.SimpleNamespace(param_groups=[{}])
        rate = scheduler.cosine_lr(optimizer, 5e-4, warmup, steps)
        assert answer["lrs"] == pytest.approx([rate(step) for step in range(steps)], rel=1e-13)


@pytest.mark.parametrize("name, layers, text_layers",
                         [("RN50", [3, 4, 6, 3], 3), ("ViT-B-32", 12, 12), ("ViT-B-16", 12, 12), ("ViT-L-14", 24, 12),
                          ("ViT-L-14-336", 24, 12), ("ViT-H-14", 32, 24)])
def test_decay_groups(name, layers, text_layers):
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, part) for part in ("request.pt", "answer.pt")]
        torch.save({"vision": name, "text_layers": text_layers}, files[0])
        subprocess.run([TOOL, *files], check=True)
        found = torch.load(files[1], weights_only=True)["groups"]
    model = original.CLIP(16, 224, layers, 8 if name == "RN50" else 64, 16, VOCABULARY, 0.0, "gelu", 0.0, 64, 0.02, 64,
                          512, 1, text_layers, 2)
    names = ["module." + name for name, _ in model.named_parameters()]
    excluded = [name for name in names if "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name]
    expected = [excluded, [name for name in names if name not in set(excluded)]]
    assert [["module." + name for name in group] for group in found] == expected


def test_accumulated_batches_are_one_large_batch():
    model = build(VIT)
    batches = make_batches(7, VIT)  # one is left over
    together, _ = ours(model, VIT, merge(batches, 2), {"batch_size": 2 * BATCH})
    split, lines = ours(model, VIT, batches, {"accum_freq": 2})
    assert len(split["losses"]) == 3 and sum("Global Steps" in line for line in lines) == 3
    assert split["losses"] == pytest.approx(together["losses"], rel=1e-12)
    assert_close(split["state"], together["state"], 1e-9)
    train_original(model, merge(batches, 2))
    assert_close(split["state"], dict(model.state_dict()), 1e-9)


def test_accumulation_logs_as_the_original():
    model = build(VIT)
    batches = make_batches(5, VIT)
    _, lines = ours(model, VIT, batches, {"accum_freq": 2})
    expected, _ = train_original(model, batches, accum_freq=2)
    shape = lambda line: re.sub(r"(Loss|Acc|logit_scale): [\d.]+", r"\1: X", without_times(line))
    assert [shape(line) for line in lines if "Global Steps" in line] == \
        [shape(line) for line in expected if "Global Steps" in line]


def test_running_statistics_take_an_accumulated_batch_once():
    model = build(RESNET)
    answer, _ = ours(model, RESNET, make_batches(2, RESNET), {"accum_freq": 2})
    assert answer["state"]["visual.bn1.num_batches_tracked"].item() == 2


def distributed_steps(model, batches, ranks, **changes):
    """The original's default course, by hand: each rank's loss over all features with the gradient of its own alone, the
    gradients averaged over the ranks."""
    args = arguments(**changes)
    optimizer = adamw(model, args)
    rate = scheduler.cosine_lr(optimizer, args.lr, args.warmup, len(batches) // ranks)
    losses = []
    for step in range(len(batches) // ranks):
        rate(step)
        optimizer.zero_grad()
        parts = [model(batch["images"], batch["texts"]) for batch in batches[step * ranks:(step + 1) * ranks]]
        for rank in range(ranks):
            order = [rank] + [other for other in range(ranks) if other != rank]
            image, text = (torch.cat([parts[r][i] if r == rank else parts[r][i].detach() for r in order])
                           for i in range(2))
            logits = parts[rank][2] * image @ text.T
            targets = torch.arange(len(logits))
            cross_entropy = torch.nn.functional.cross_entropy
            loss = (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2
            (loss / ranks).backward(retain_graph=True)
        losses.append(loss.item())
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
    return losses


@pytest.mark.parametrize("ranks", [2, 3])
def test_default_mode_over_processes(ranks):
    model = build(VIT)
    batches = make_batches(3 * ranks, VIT)
    found, _ = ours(model, VIT, batches, {}, ranks)
    alone, _ = ours(model, VIT, merge(batches, ranks), {"batch_size": ranks * BATCH})
    assert found["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-12)
    losses = distributed_steps(model, batches, ranks)
    assert found["losses"] == pytest.approx(losses, rel=1e-10)
    assert_close(found["state"], dict(model.state_dict()), 1e-9)


@pytest.mark.parametrize("options", [{}, {"local_loss": True}], ids=["whole", "local"])
@pytest.mark.parametrize("vision, ranks", [(VIT, 3), (RESNET, 2)], ids=["vit", "resnet"])
def test_gathered_gradients_and_statistics_equal_one_process(vision, ranks, options):
    model = build(vision)
    batches = make_batches(3 * ranks, vision)
    alone, _ = ours(model, vision, merge(batches, ranks), {"batch_size": ranks * BATCH})
    found, _ = ours(model, vision, batches, {"gather_with_grad": True, "use_bn_sync": True, **options}, ranks)
    if not options:
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-9)
    assert_close(found["state"], alone["state"], 1e-8)


@pytest.mark.parametrize("options", [{}, {"local_loss": True}], ids=["whole", "local"])
def test_gathered_gradients_with_accumulation_equal_one_process(options):
    model = build(VIT)
    batches = make_batches(8, VIT)  # two steps of two batches on each of two processes
    order = [0, 2, 1, 3, 4, 6, 5, 7]  # rank by rank, as the features are gathered
    alone, _ = ours(model, VIT, merge([batches[i] for i in order], 4), {"batch_size": 4 * BATCH})
    found, _ = ours(model, VIT, batches, {"gather_with_grad": True, "accum_freq": 2, **options}, 2)
    if not options:
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-10)
    assert_close(found["state"], alone["state"], 1e-9)


gpus = pytest.mark.skipif(not os.environ.get("STROBE_TEST_CUDA"), reason="wants STROBE_TEST_CUDA=1 and several GPUs")


def on_gpus(model, batches, options, ranks=1, vision=VIT, **more):
    single = [{name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
              for batch in batches]
    return ours(model.float(), vision, single, options, ranks, gpu=True, **more)[0]["losses"]


@gpus
@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("ranks", sorted({2, max(2, torch.cuda.device_count())}))
def test_gpus_equal_one(vision, ranks):
    batches = make_batches(3 * ranks, vision)
    alone = on_gpus(build(vision), merge(batches, ranks), {"batch_size": ranks * BATCH}, vision=vision)
    found = on_gpus(build(vision), batches, {"gather_with_grad": True, "use_bn_sync": True}, ranks, vision)
    assert len(found) == 3 and found == pytest.approx(alone, rel=1e-5)
    default = on_gpus(build(vision), batches, {"use_bn_sync": True}, ranks, vision)
    assert default[0] == pytest.approx(alone[0], rel=1e-5)


@gpus
@pytest.mark.parametrize("options", [{}, {"gather_with_grad": True}, {"gather_with_grad": True, "local_loss": True}],
                         ids=["default", "gathered", "local"])
@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_no_update_waits_for_its_gpu(vision, options):
    more = {"precision": "amp", "attn_type": "imp_flash_attn", "use_bn_sync": True, **options}
    assert len(on_gpus(build(vision), make_batches(10, vision), more, 2, vision, never_waits=True)) == 5


def test_processes_each_for_themselves():
    model = build(VIT)
    batches = make_batches(2, VIT)
    found, _ = ours(model, VIT, batches, {"skip_aggregate": True}, 2)
    own, _ = ours(model, VIT, batches[:1], {})
    assert found["losses"] == pytest.approx(own["losses"], rel=1e-12)


@pytest.mark.parametrize("ranks, options", [(1, {}), (1, {"accum_freq": 2}), (2, {"gather_with_grad": True})],
                         ids=["one", "accumulated", "gathered"])
def test_distillation(ranks, options):
    model, teacher = build(VIT), build({**VIT, "width": 128}, seed=3)
    teacher_state = {name: value.clone() for name, value in teacher.state_dict().items()}
    batches = make_batches(2, VIT)
    whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    split = batches if options else [whole]
    found, _ = ours(model, VIT, split, {"kd_loss_weight": 0.7, **options}, ranks,
                    teacher={"vision": describe({**VIT, "width": 128}), "state": teacher_state})
    image, text, scale = model(whole["images"], whole["texts"])
    logits = scale * image @ text.T
    targets = torch.arange(len(logits))
    loss = (torch.nn.functional.cross_entropy(logits, targets) + torch.nn.functional.cross_entropy(logits.T, targets)) / 2
    distilled = training.cosineSimilarityLoss(teacher.encode_image(whole["images"]), image)
    assert found["losses"][0] == pytest.approx((loss + 0.7 * distilled).item(), rel=1e-10)


def test_a_frozen_tower_stays():
    model = build(RESNET)
    answer, _ = ours(model, RESNET, make_batches(2, RESNET), {"freeze_vision": True})
    for name, value in model.state_dict().items():
        assert torch.equal(answer["state"][name], value) == name.startswith("visual"), name


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
