"""`strobe clip train` and `extract-features` on a GPU: the attention types, gradient checkpointing and left-out patches train
alike, fp16 and bf16 features are those of fp32 and of the CPU.

STROBE_PROGRAM names the program, STROBE_VOCABULARY a vocab.txt where it would find none. Skipped where there is no GPU.
"""

import base64
import json
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import zlib

import pytest

PROGRAM = os.environ["STROBE_PROGRAM"]
VOCABULARY = ["--vocab", os.environ["STROBE_VOCABULARY"]] if "STROBE_VOCABULARY" in os.environ else []
LIMIT = 120  # seconds
PAIRS, SIDE = 48, 24
WORDS = "红色绿色蓝色黄色的圆方形大小星猫狗鱼鸟"

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/nvidia0"), reason="no GPU")


def png(pixels):
    """[SIDE * SIDE * 3] bytes as a PNG."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + pixels[row * SIDE * 3:(row + 1) * SIDE * 3] for row in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def run(*words):
    done = subprocess.run([PROGRAM, "clip", *map(str, words)], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def data():
    generator = random.Random(3)
    with tempfile.TemporaryDirectory() as path:
        folder = pathlib.Path(path)
        with open(folder / "train_imgs.tsv", "w") as images, open(folder / "train_texts.jsonl", "w") as texts:
            for i in range(PAIRS):
                images.write(f"{i}\t{base64.b64encode(png(generator.randbytes(SIDE * SIDE * 3))).decode()}\n")
                text = "".join(generator.choices(WORDS, k=generator.randint(2, 9)))
                texts.write(json.dumps({"text_id": 100 + i, "text": text, "image_ids": [i]}) + "\n")
        run("build-lmdb", "--data_dir", folder, "--splits", "train")
        yield folder


def train(data, name, *more):
    """The losses of its steps."""
    log = run("train", "--train-data", data / "lmdb/train", "--logs", data, "--name", name, "--vision-model",
              "ViT-mini-16-96", "--text-model", "BERT-mini-chinese", "--batch-size", 16, "--max-epochs", 4, "--warmup", 2,
              "--lr", 1e-3, "--log-interval", 1, "--num-workers", 1, "--context-length", 12, *VOCABULARY, *more)
    losses = [float(found) for found in re.findall(r"Train Epoch: .*? \| Loss: ([0-9.]+) \|", log)]
    assert len(losses) == 12 and all(math.isfinite(loss) for loss in losses), log
    return losses


@pytest.fixture(scope="module")
def plain(data):
    return train(data, "plain")


# Dropout draws differ only where launches differ; what is the same is the same network on the same data.
FIRST, LATER = 0.02, 0.4


@pytest.mark.parametrize("more", [["--attn-type", "imp_flash_attn"], ["--attn-type", "flash_attn"],
                                  ["--use-flash-attention", "--precision", "amp_bf16"], ["--grad-checkpointing"],
                                  ["--use-flash-attention", "--grad-checkpointing"], ["--precision", "fp32"]],
                         ids=lambda more: "_".join(more).replace("--", ""))
def test_trains_as_the_materialised_attention(data, plain, more):
    losses = train(data, "_".join(more).replace("--", ""), *more)
    assert abs(losses[0] - plain[0]) < FIRST
    assert all(abs(found - expected) < LATER for found, expected in zip(losses, plain)), (losses, plain)


def test_checkpointing_is_exact(data):
    """The recomputed pass draws the same numbers, so the losses differ by rounding alone."""
    options = ["--use-flash-attention", "--seed", 5]
    assert train(data, "a", *options) == pytest.approx(train(data, "b", *options, "--grad-checkpointing"), abs=0.05)


def test_patches_are_left_out(data, plain):
    losses = train(data, "flip", "--use-flash-attention", "--mask-ratio", 0.5)
    assert losses != plain and abs(losses[0] - plain[0]) < 0.5


def features(data, name, *more):
    outputs = [data / f"{name}.{kind}.jsonl" for kind in ("images", "texts")]
    run("extract-features", "--extract-image-feats", "--extract-text-feats", "--image-data", data / "lmdb/train/imgs",
        "--text-data", data / "train_texts.jsonl", "--image-feat-output-path", outputs[0], "--text-feat-output-path",
        outputs[1], "--resume", data / "plain/checkpoints/epoch_latest.pt", "--context-length", 12, *VOCABULARY, *more)
    return [json.loads(line)["feature"] for output in outputs for line in output.read_text().splitlines()]


def furthest(found, expected):
    assert len(found) == len(expected) == 2 * PAIRS
    return max(math.dist(a, b) for a, b in zip(found, expected))


def test_features_of_every_precision(data, plain):
    exact = features(data, "cpu", "--device", "cpu", "--precision", "fp32")
    assert furthest(features(data, "fp32", "--precision", "fp32"), exact) < 1e-4
    for options, distance in ((["--precision", "fp16"], 0.01), (["--precision", "amp_bf16"], 0.08),
                              (["--use-flash-attention"], 0.01),
                              (["--use-flash-attention", "--precision", "amp_bf16"], 0.08)):
        assert furthest(features(data, "_".join(options), *options), exact) < distance, options


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
