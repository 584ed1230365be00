"""Whole runs of `strobe clip train` on a small LMDB: the original's files and log, what kills leave, and going on from the
original's checkpoints.

STROBE_PROGRAM names the program.
"""

import base64
import io
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time

import cn_clip.clip.model as original
import lmdb
import pytest
import torch
from checkpoints import expect_equal
from PIL import Image

PROGRAM = os.environ["STROBE_PROGRAM"]
SCRIPTS = pathlib.Path(__file__).parents[3] / "run_scripts"
LIMIT = 120  # seconds
PAIRS, BATCH = 22, 8  # three batches an epoch, the last filled up with the first pairs
WORDS = "红色绿色蓝色黄色的圆方形大小星猫狗鱼鸟"


def write_lmdb(folder, values):
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(str(key).encode(), value)


def picture(generator):
    buffer = io.BytesIO()
    Image.frombytes("RGB", (24, 24), generator.randbytes(24 * 24 * 3)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue())


def write_data(folder):
    generator = random.Random(3)
    for split, count in (("train", PAIRS), ("valid", 10)):
        write_lmdb(folder / split / "imgs", {**{i: picture(generator) for i in range(count)},
                                             "num_images": str(count).encode()})
        text = lambda: "".join(generator.choices(WORDS, k=generator.randint(2, 9)))
        write_lmdb(folder / split / "pairs", {**{i: pickle.dumps((i, 100 + i, text())) for i in range(count)},
                                              "num_samples": str(count).encode()})


@pytest.fixture(scope="module")
def data():
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        write_data(pathlib.Path(path))
        yield pathlib.Path(path)


def command(data, logs, *more, name="run"):
    return [PROGRAM, "clip", "train", "--train-data", data / "train", "--val-data", data / "valid", "--logs", logs,
            "--name", name, "--vision-model", "ViT-mini-16-96", "--text-model", "BERT-mini-chinese", "--batch-size", BATCH,
            "--valid-batch-size", 5, "--max-epochs", 2, "--warmup", 2, "--log-interval", 1, "--num-workers", 1,
            "--context-length", 12, "--device", "cpu", "--threads", 1, "--use-augment", *more]


def text(words):
    return [str(word) for word in words]


def run(*words, status=0):
    done = subprocess.run(text(words), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == status, done.stderr
    return done.stderr


def load(file):
    return torch.load(file, weights_only=True)


def steps_of(log):
    """[(step, epoch)] of the lines of training."""
    return [tuple(map(int, found)) for found in re.findall(r"Global Steps: (\d+)/\d+ \| Train Epoch: (\d+) ", log)]


@pytest.fixture(scope="module")
def straight(data):
    """(folder, log) of a run from beginning to end."""
    log = run(*command(data, data / "straight", "--save-step-frequency", 2, "--valid-step-interval", 2,
                       "--report-training-batch-acc"))
    return data / "straight" / "run", log


def test_files_and_log(straight):
    folder, log = straight
    checkpoints = folder / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == \
        ["epoch1.pt", "epoch2.pt", "epoch_1_2.pt", "epoch_2_4.pt", "epoch_2_6.pt", "epoch_latest.pt"]
    names = [path.name for path in folder.iterdir()]
    assert {"checkpoints", "tensorboard", "run.json", "config.toml"} < set(names) and len(names) == 6
    stamp = r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d"
    assert sum(bool(re.fullmatch(rf"out_{stamp}\.log|params_{stamp}\.txt", name)) for name in names) == 2
    written = next(folder.glob("out_*.log")).read_text()
    assert [line for line in log.splitlines() if " | Rank 0 | " in line] == written.splitlines()
    lines = next(folder.glob("params_*.txt")).read_text().splitlines()
    assert lines == sorted(lines, key=lambda line: line.split(":")[0]) and "lr: 0.0005" in lines and "eps: 1e-06" in lines
    prefix = r"^\d{4}-\d\d-\d\d,\d\d:\d\d:\d\d \| INFO \| Rank 0 \| "
    number = r"\d+\.\d"
    assert re.search(prefix + rf"Global Steps: 1/6 \| Train Epoch: 1 \[8/24 \(33%\)\] \| Loss: {number}{{6}} \| "
                     rf"Image2Text Acc: {number}{{2}} \| Text2Image Acc: {number}{{2}} \| Data Time: {number}{{3}}s \| "
                     rf"Batch Time: {number}{{3}}s \| LR: 0\.000250 \| logit_scale: 2\.659 \| Global Batch Size: 8$",
                     log, re.M)
    assert re.search(prefix + r"train LMDB file contains 22 images and 22 pairs\.$", log, re.M)
    assert re.search(prefix + r"Begin to eval on validation set \(epoch 1 @ 2 steps\)\.\.\.$", log, re.M)
    assert re.search(prefix + rf"Validation Result \(epoch 1 @ 3 steps\) \| Valid Loss: {number}{{6}} \| Image2Text Acc: "
                     rf"{number}{{2}} \| Text2Image Acc: {number}{{2}} \| logit_scale: {number}{{3}} \| "
                     r"Valid Batch Size: 5$", log, re.M)
    assert re.search(r"Validation Recall \(epoch 2 @ 6 steps\) .* 10 Images, 10 Texts$", log, re.M)
    assert log.count("Validation Result") == 4  # after steps 2, 3, 4 and 6: the same weights once
    assert re.search(prefix + r"Saved checkpoint \S+/epoch_1_2\.pt \(epoch 1 @ 2 steps\) \(writing took \S+ seconds\)$",
                     log, re.M)
    assert steps_of(log) == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


def originals_model():
    return original.CLIP(256, 96, 4, 256, 16, 21128, 0.0, "gelu", 0.0, 256, 0.02, 1024, 512, 4, 4, 2)


class Wrapper(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def originals_optimizer(model):
    exclude = lambda name: "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name
    named = list(model.named_parameters())
    return torch.optim.AdamW([{"params": [p for n, p in named if exclude(n)], "weight_decay": 0.0},
                              {"params": [p for n, p in named if not exclude(n)], "weight_decay": 0.2}],
                             lr=5e-4, betas=(0.9, 0.98), eps=1e-6)


def test_the_original_goes_on_from_our_file(straight):
    checkpoint = torch.load(straight[0] / "checkpoints" / "epoch_latest.pt", map_location="cpu")
    assert (checkpoint["epoch"], checkpoint["step"], checkpoint["name"]) == (2, 6, "run")
    model = Wrapper(originals_model())
    model.load_state_dict({k: v for k, v in checkpoint["state_dict"].items() if "bert.pooler" not in k})
    optimizer = originals_optimizer(model)
    optimizer.load_state_dict(checkpoint["optimizer"])
    before = model.module.text_projection.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not torch.equal(before, model.module.text_projection)
    slots = [optimizer.state[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    assert {float(slot["step"]) for slot in slots} == {7.0}


def as_the_original_writes(file, source, **changes):
    """Ours without what only we know; the numbers of an optimizer that the original has made."""
    content = load(source)
    model = Wrapper(originals_model())
    model.load_state_dict(content["state_dict"])
    optimizer = originals_optimizer(model)
    optimizer.load_state_dict(content["optimizer"])
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group.pop("param_names", None)
    torch.save({"epoch": content["epoch"], "step": content["step"], "name": "theirs", "state_dict": model.state_dict(),
                "optimizer": state, **changes}, file)


def test_goes_on_from_the_originals_file(data, straight, tmp_path):
    file = tmp_path / "theirs.pt"
    as_the_original_writes(file, straight[0] / "checkpoints" / "epoch1.pt")
    log = run(*command(data, tmp_path, "--resume", file))
    assert "=> optimizer state is restored from the checkpoint" in log
    assert f"=> loaded checkpoint '{file}' (epoch 1 @ 3 steps)" in log and steps_of(log) == [(4, 2), (5, 2), (6, 2)]
    optimizer = load(tmp_path / "run/checkpoints/epoch2.pt")["optimizer"]
    assert {float(slot["step"]) for slot in optimizer["state"].values()} == {6.0}
    # within the epoch, where the steps say so
    as_the_original_writes(file, straight[0] / "checkpoints" / "epoch_1_2.pt")
    log = run(*command(data, tmp_path, "--resume", file, "--max-epochs", 1, name="within"))
    assert steps_of(log) == [(3, 1)]
    log = run(*command(data, tmp_path, "--resume", file, "--reset-data-offset", "--reset-optimizer", "--max-steps", 2,
                       name="anew"))
    assert steps_of(log) == [(1, 1), (2, 1)] and "optimizer state is restored" not in log


def test_killed_it_ends_as_if_never(data, straight, tmp_path):
    words = text(command(data, tmp_path, "--save-step-frequency", 2, "--valid-step-interval", 2,
                         "--report-training-batch-acc"))
    for file in ("epoch_1_2.pt", "epoch_2_4.pt"):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + LIMIT
        while not (tmp_path / "run/checkpoints" / file).exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert (tmp_path / "run/checkpoints" / file).exists()
        left = tmp_path / "run/checkpoints/epoch_latest.pt"  # the kill may have come between the two
        if not left.exists():
            left.hardlink_to(tmp_path / "run/checkpoints" / file)
    run(*words)
    for file in ("epoch2.pt", "epoch_latest.pt"):
        expect_equal(load(tmp_path / "run/checkpoints" / file), load(straight[0] / "checkpoints" / file))


def test_a_signal_leaves_a_checkpoint(data, tmp_path):
    words = text(command(data, tmp_path, "--max-epochs", 50))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "Global Steps: 2/" in line:
            process.terminate()
            break
    process.stderr.read()
    assert process.wait() == 128 + 15
    step = load(tmp_path / "run/checkpoints/epoch_latest.pt")["step"]
    log = run(*words, "--max-steps", step + 1)
    assert [found[0] for found in steps_of(log)] == [step + 1]


def test_several_processes(data, tmp_path):
    log = run(*command(data, tmp_path, "--nproc", 2, "--gather-with-grad", "--local-loss", "--batch-size", 4,
                       "--accum-freq", 1, "--save-step-frequency", 1, "--max-epochs", 1))
    assert steps_of(log) == [(1, 1), (2, 1), (3, 1)] and "Global Batch Size: 8" in log
    assert re.search(r"Validation Recall \(epoch 1 @ 3 steps\) .* 10 Images, 10 Texts$", log, re.M)
    # One process goes on from the same place in the data.
    log = run(*command(data, tmp_path, "--resume", tmp_path / "run/checkpoints/epoch_1_1.pt", "--max-epochs", 1, name="one"))
    assert "2 processes, this one has 1" in log and steps_of(log) == [(2, 1), (3, 1)]


def test_nothing_is_written_without_a_folder(data, tmp_path):
    before = sorted(os.listdir())
    log = run(*command(data, "None", "--max-steps", 1, "--skip-scheduler", "--freeze-text", "--freeze-vision",
                       "--grad-clip-norm", 1, "--precision", "amp_bf16", "--use-flash-attention", "--grad-checkpointing"))
    assert "Global Steps: 1/1" in log and sorted(os.listdir()) == before


def test_refuses_in_words(data, tmp_path):
    def error(*more, status=1):
        return run(*command(data, tmp_path, *more), status=status)

    assert "--precision: expected amp, amp_bf16 or fp32, found fp16" in error("--precision", "fp16")
    assert "did you mean \"RN50\"" in error("--vision-model", "RN5", status=2)
    assert "--train-data: /nowhere does not exist" in error("--train-data", "/nowhere")
    assert "--resume: /nowhere.pt does not exist" in error("--resume", "/nowhere.pt")
    assert "nothing is fetched from a hub" in error("--distillation", "--teacher-model-name", "damo/x")
    assert "--mask-ratio: expected 0 <= ratio < 1, found 1" in error("--mask-ratio", 1)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*_finetune_*.sh")))
def test_scripts(script, tmp_path):
    program = tmp_path / "strobe"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    done = subprocess.run(["bash", SCRIPTS / script, "/data"], capture_output=True, text=True, check=True,
                          env={**os.environ, "STROBE": str(program), "GPUS_PER_NODE": "3", "RANK": "0"})
    words = done.stdout.split()
    assert words[:4] == ["clip", "train", "--nproc", "3"]
    known = subprocess.run([PROGRAM, "clip", "train", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"{word.split('=')[0]}\b", known) for word in words[4:]), words
    assert ("--use-flash-attention" in words) == ("flashattn" in script)
    assert ("--distillation" in words) == ("distillation" in script)
    assert ("--mask-ratio=0.5" in words) == ("flip" in script)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
