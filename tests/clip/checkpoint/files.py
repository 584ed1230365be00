"""Small models of the original, their files, and the tool that answers how strobe reads and writes them."""

import contextlib
import json
import os
import pathlib
import subprocess

import torch
from cn_clip.clip import model as clip_model
from cn_clip.clip import modeling_bert

TOOL = os.environ["STROBE_CLIP_CHECKPOINT_TOOL"]
STROBE = os.environ["STROBE_PROGRAM"]

TEXT = dict(vocab_size=60, text_attention_probs_dropout_prob=0.1, text_hidden_act="gelu", text_hidden_dropout_prob=0.1,
            text_hidden_size=64, text_initializer_range=0.02, text_intermediate_size=96, text_max_position_embeddings=20,
            text_num_attention_heads=1, text_num_hidden_layers=2, text_type_vocab_size=2)
VIT = dict(embed_dim=24, image_resolution=32, vision_layers=2, vision_width=64, vision_patch_size=16)
RESNET = dict(embed_dim=24, image_resolution=64, vision_layers=(1, 2, 1, 1), vision_width=4, vision_patch_size=None)


class FlashMHA(torch.nn.Module):
    """The parameters of flash_attn 0.2.8's class of this name."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.Wqkv = torch.nn.Linear(embed_dim, 3 * embed_dim)
        self.out_proj = torch.nn.Linear(embed_dim, embed_dim)


clip_model.FlashMHA = modeling_bert.FlashMHA = FlashMHA


class Wrapped(torch.nn.Module):
    """Names as DistributedDataParallel gives them."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def build(vision=VIT, flash=False, seed=1, **changes):
    torch.manual_seed(seed)
    model = Wrapped(clip_model.CLIP(**{**vision, **TEXT, **changes}, use_flash_attention=flash))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_()
            else:
                tensor.fill_(7)
    return model


def has_decay(name):
    return not ("bn" in name or "ln" in name or "bias" in name or "logit_scale" in name)


def optimizer_of(model, steps=2):
    """As training/main.py makes it, after some updates."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([
        {"params": [p for name, p in named if not has_decay(name)], "weight_decay": 0.0},
        {"params": [p for name, p in named if has_decay(name)], "weight_decay": 0.001},
    ], lr=5e-5, betas=(0.9, 0.98), eps=1e-6)
    for _ in range(steps):
        for _, parameter in named:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return optimizer


def moments(model, optimizer):
    """{bare name: (step, exp_avg, exp_avg_sq)}"""
    return {name.removeprefix("module."): (float(s["step"]), s["exp_avg"], s["exp_avg_sq"])
            for name, p in model.named_parameters() if (s := optimizer.state.get(p))}


def checkpoint(model, optimizer=None, **changes):
    state = model.state_dict()
    content = {"epoch": 3, "step": 210, "name": "run 名", "state_dict": state}
    if optimizer is not None:
        content["optimizer"] = optimizer if isinstance(optimizer, dict) else optimizer.state_dict()
    return {**content, **changes}


def run(program, *arguments, check=True):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def tool(*arguments):
    """What the last argument's file holds afterwards."""
    run(TOOL, *arguments)
    return torch.load(arguments[-1], weights_only=True)


def refusal(path, command="weights"):
    done = run(TOOL, command, path, str(path) + ".out", check=False)
    assert done.returncode == 1 and str(path) in done.stderr, (done.returncode, done.stderr)
    return done.stderr


def convert(*arguments):
    return run(STROBE, "clip", "convert", *arguments).stdout


def bare(state):
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def assert_same(found, expected):
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@contextlib.contextmanager
def stored_on(location):
    """torch.save's tensors say that they come from there."""
    tag = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: location
    try:
        yield
    finally:
        torch.serialization.location_tag = tag


def hollow(vision, text):
    """The file of a model of full size whose tensors repeat one element: the shapes for a few bytes."""
    folder = pathlib.Path(clip_model.__file__).parent / "model_configs"
    config = {key: value for name in (vision, text) for key, value in json.loads((folder / f"{name}.json").read_text()).items()}
    if isinstance(config["vision_layers"], str):
        config["vision_layers"] = json.loads(config["vision_layers"])
    with torch.device("meta"):
        state = Wrapped(clip_model.CLIP(**config)).state_dict()
    return {"state_dict": {name: torch.ones((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in state.items()}}
