"""Checkpoints and optimiser against Python's torch: files go both ways, k updates agree."""

import argparse
import collections
import os
import pathlib
import subprocess
import sys

import pytest
import torch

TOOL = os.environ["STROBE_TRAIN_TOOL"]


def tool(*arguments):
    return subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def dump(path):
    """The leaves that the C++ reader finds: {path: (type, text)}."""
    done = tool("dump", path)
    assert done.returncode == 0, done.stderr
    lines = (line.split(" ", 2) for line in done.stdout.splitlines())
    return {name: (kind, text) for name, kind, text in lines}


@pytest.mark.parametrize("mmap", [False, True])
def test_python_reads_what_we_write(tmp_path, mmap):
    path = tmp_path / "c.pt"
    assert tool("write", path).returncode == 0
    content = torch.load(path, weights_only=True, mmap=mmap)
    base = torch.arange(6.0).reshape(2, 3)
    model = content["model"]
    assert torch.equal(model["weight"], base) and torch.equal(model["transposed"], base.t())
    assert model["transposed"].stride() == (1, 3)
    assert model["weight"].untyped_storage().data_ptr() == model["transposed"].untyped_storage().data_ptr()
    assert model["half"].dtype == torch.float16 and torch.equal(model["half"], base.half())
    assert model["bfloat16"].dtype == torch.bfloat16 and torch.equal(model["bfloat16"], base.bfloat16())
    assert torch.equal(model["long"], torch.arange(3))
    assert torch.equal(model["parameter"], base)
    assert content["values"] == [None, True, -1, 70000, 2**40, 0.1, "naïve 译", b"\x00\xff"]
    assert content["tuple"] == (1, (), [], {})


def test_we_read_what_python_writes(tmp_path):
    path = tmp_path / "c.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    shared = torch.arange(10.0)
    torch.save({
        "state_dict": model.state_dict(),  # an OrderedDict with _metadata
        "half": torch.ones(3, dtype=torch.float16),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "views": [shared[2:5], shared.reshape(2, 5).t()],
        "parameter": torch.nn.Parameter(torch.full((2,), 3.0)),
        "size": torch.Size([4, 5]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "ints": [0, 255, 256, -1, 2**31, -(2**40), 2**62],
        "bytes": [b"", b"\x00\xff"],
        "text": "naïve 译",
        "none": None,
        7: (1.5, True),
    }, path)
    leaves = dump(path)
    assert leaves["/state_dict"] == ("dict", "7")
    weight = model[0].weight.detach().double()
    kind, text = leaves["/state_dict/0.weight"]
    dtype, dims, numel, total = text.split()
    assert (kind, dtype, dims, numel) == ("Tensor", "Float", "2", "6")
    assert float(total) == pytest.approx(weight.sum().item(), abs=1e-14)
    assert leaves["/state_dict/1.num_batches_tracked"] == ("Tensor", "Long 0 1 0")
    assert leaves["/half"] == ("Tensor", "Half 1 3 3")
    assert leaves["/bfloat16"] == ("Tensor", "BFloat16 1 3 3")
    assert leaves["/views/0"] == ("Tensor", "Float 1 3 9") and leaves["/views/1"] == ("Tensor", "Float 2 10 45")
    assert leaves["/parameter"] == ("Tensor", "Float 1 2 6")
    assert leaves["/size"] == ("tuple", "2") and leaves["/size/1"] == ("int", "5")
    assert leaves["/scalar"] == ("Tensor", "Double 0 1 2.5")
    assert [leaves[f"/ints/{i}"][1] for i in range(7)] == list(map(str, [0, 255, 256, -1, 2**31, -(2**40), 2**62]))
    assert leaves["/bytes/0"] == ("bytes", "") and leaves["/bytes/1"] == ("bytes", r"\x00\xff")
    assert leaves["/text"][1] == "".join(c if " " < c < "\x7f" else "".join(f"\\x{b:02x}" for b in c.encode())
                                         for c in "naïve 译")
    assert leaves["/none"] == ("NoneType", "None")
    assert leaves["/7/0"] == ("float", "1.5") and leaves["/7/1"] == ("bool", "True")


class Marker:
    """Runs when it is unpickled, were anything run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("value, name", [
    (argparse.Namespace(lr=1), "argparse.Namespace"),
    ({1, 2}, "__builtin__.set"),
    (collections.Counter("aab"), "collections.Counter"),
    (torch.float16, "torch.float16"),
    (pathlib.PurePosixPath("x"), "pathlib.PurePosixPath"),
])
def test_other_classes_are_refused_by_name(tmp_path, value, name):
    path = tmp_path / "c.pt"
    torch.save({"args": value}, path)
    done = tool("dump", path)
    assert done.returncode == 1
    assert str(path) in done.stderr and name in done.stderr


def test_nothing_is_executed(tmp_path):
    path, trace = tmp_path / "c.pt", tmp_path / "trace"
    torch.save({"args": Marker(trace)}, path)
    done = tool("dump", path)
    assert done.returncode == 1 and "open" in done.stderr
    assert not trace.exists()


def test_old_format_is_refused(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    done = tool("dump", path)
    assert done.returncode == 1 and "not a checkpoint" in done.stderr


def adam_task(adamw, clip_norm, steps):
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    shapes = {"weight": (5, 3), "bias": (5,), "embedding": (7, 2)}
    return {
        "adamw": adamw, "beta1": 0.9, "beta2": 0.98, "eps": 1e-9, "weight_decay": 0.1, "clip_norm": clip_norm,
        "lr": [1e-3 * (1 + i % 5) for i in range(steps)],
        "weights": {name: draw(*shape) for name, shape in shapes.items()},
        "gradients": [{name: draw(*shape) for name, shape in shapes.items()} for _ in range(steps)],
        "optimizer": None,
    }


def python_optimizer(task):
    weights = {name: value.clone().requires_grad_() for name, value in task["weights"].items()}
    kind = torch.optim.AdamW if task["adamw"] else torch.optim.Adam
    groups = [{"params": [weights["weight"], weights["embedding"]], "weight_decay": task["weight_decay"]},
              {"params": [weights["bias"]], "weight_decay": 0.0}]
    return weights, kind(groups, betas=(task["beta1"], task["beta2"]), eps=task["eps"])


def python_steps(task, weights, optimizer, steps):
    for step in steps:
        for name, weight in weights.items():
            weight.grad = task["gradients"][step][name].clone()
        if task["clip_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(weights.values(), task["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = task["lr"][step]
        optimizer.step()


@pytest.mark.parametrize("adamw", [False, True])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_updates_agree_and_states_go_both_ways(tmp_path, adamw, clip_norm):
    task = adam_task(adamw, clip_norm, 20)
    weights, optimizer = python_optimizer(task)
    python_steps(task, weights, optimizer, range(10))
    first, out = tmp_path / "first.pt", tmp_path / "out.pt"
    torch.save({**task, "lr": task["lr"][:10], "gradients": task["gradients"][:10]}, first)
    assert tool("adam", first, out).returncode == 0
    ours = torch.load(out, weights_only=True)
    for name, weight in weights.items():
        assert torch.allclose(ours["weights"][name], weight, rtol=0, atol=1e-12), name

    # Ten updates there, ten more here: from the state that the other side wrote.
    second, out = tmp_path / "second.pt", tmp_path / "out2.pt"
    torch.save({**task, "lr": task["lr"][10:], "gradients": task["gradients"][10:],
                "weights": {name: w.detach() for name, w in weights.items()}, "optimizer": optimizer.state_dict()}, second)
    done = tool("adam", second, out)
    assert done.returncode == 0, done.stderr
    continued, continuing = python_optimizer({**task, "weights": ours["weights"]})
    continuing.load_state_dict(ours["optimizer"])
    python_steps(task, continued, continuing, range(10, 20))
    python_steps(task, weights, optimizer, range(10, 20))
    theirs = torch.load(out, weights_only=True)
    for name, weight in weights.items():
        assert torch.allclose(continued[name], weight, rtol=0, atol=1e-12), name
        assert torch.allclose(theirs["weights"][name], weight, rtol=0, atol=1e-12), name


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_run_is_what_torch_would_have_done(tmp_path, kind):
    """Accumulation over three batches, the mean over their items, clipping, weight decay, Noam's schedule: 20 updates."""
    done = tool("course", kind, tmp_path)
    assert done.returncode == 0, done.stderr
    data = torch.load(tmp_path / "data.pt", weights_only=True)
    found = torch.load(tmp_path / "last.pt", weights_only=True)["model"]
    weights = {name: value.clone().requires_grad_() for name, value in data["weights"].items() if name != "offset"}
    assert all(weight.dtype == torch.float64 for weight in weights.values())
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](
        [{"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": 0.1},
         {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0}],
        lr=0.1 * 512**-0.5, betas=(0.9, 0.98), eps=1e-9)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1)**-0.5, (done + 1) * 6**-1.5))
    norms = []
    for first in range(0, len(data["batches"]), 3):
        group = data["batches"][first:first + 3]
        optimizer.zero_grad()
        for batch in group:
            hidden = torch.tanh(torch.nn.functional.linear(batch["inputs"], weights["hidden_weight"],
                                                           weights["hidden_bias"]))
            output = torch.nn.functional.linear(hidden, weights["output_weight"], weights["output_bias"])
            ((output - batch["targets"])**2).sum().div(sum(len(b["targets"]) for b in group)).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(weights.values(), 0.05))
        optimizer.step()
        schedule.step()
    assert len(norms) == 20 and min(norms) > 0.05  # every update was clipped
    for name, weight in weights.items():
        assert (weight - data["weights"][name]).abs().max() > 1e-3, name
        assert (weight - found[name]).abs().max() < 1e-9, name


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
