"""extract-features, zeroshot and similarity against cn_clip's data sets and functions on the CPU (its programs run on
CUDA alone), with a small model of random weights.

STROBE_PROGRAM names strobe.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import subprocess
import sys

import lmdb
import numpy
import pytest
import torch
from PIL import Image

from cn_clip.clip.model import CLIP
from cn_clip.clip.utils import image_transform, tokenize
from cn_clip.eval import zeroshot_evaluation
from cn_clip.eval.cvinw_zeroshot_templates import country211_templates
from cn_clip.eval.data import EvalImgDataset, EvalTxtDataset, _preprocess_text, get_zeroshot_dataset

STROBE = os.environ["STROBE_PROGRAM"]
RESOLUTION = 32
CONFIG = dict(
    embed_dim=48, image_resolution=RESOLUTION, vision_layers=2, vision_width=128, vision_patch_size=16, vocab_size=21128,
    text_attention_probs_dropout_prob=0.1, text_hidden_act="gelu", text_hidden_dropout_prob=0.1, text_hidden_size=128,
    text_initializer_range=0.02, text_intermediate_size=512, text_max_position_embeddings=512, text_num_attention_heads=2,
    text_num_hidden_layers=2, text_type_vocab_size=2)


def strobe(*arguments):
    return subprocess.run([STROBE, "clip", *map(str, arguments), "--device", "cpu"], capture_output=True, text=True)


def picture(rng, mode="RGB", kind="PNG"):
    array = rng.integers(0, 256, (rng.integers(20, 60), rng.integers(20, 60), 4), dtype=numpy.uint8)
    image = Image.fromarray(array, "RGBA")
    if mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def write_lmdb(folder, images, claimed):
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
        for key, value in images.items():
            txn.put(str(key).encode(), base64.urlsafe_b64encode(value))
        txn.put(b"num_images", str(claimed).encode())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(11)
    model = CLIP(**CONFIG).eval().float()
    file = tmp_path_factory.mktemp("model") / "epoch1.pt"
    state = {"module." + name: value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "step": 5, "name": "tiny", "state_dict": state}, file)
    model.file = file
    return model


def features_of(file, key):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(list(line) == [key, "feature"] for line in lines)
    return [line[key] for line in lines], torch.tensor([line["feature"] for line in lines])


def assert_close(ours, theirs):
    theirs = theirs / theirs.norm(dim=-1, keepdim=True)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5


def test_texts(model, tmp_path):
    texts = ["杰尼龟", "“小火龙” Pikachu", "", "的" * 70, "İΣ"] * 9
    data = tmp_path / "x_texts.jsonl"
    data.write_text("".join(json.dumps({"text_id": 10**10 + i, "text": text, "image_ids": [1]}, ensure_ascii=False) + "\n"
                            for i, text in enumerate(texts)), "utf-8")
    done = strobe("extract-features", "--extract-text-feats", "--text-data", data, "--resume", model.file,
                  "--text-batch-size", 7, "--context-length", 30)
    assert done.returncode == 0, done.stderr
    ids, ours = features_of(tmp_path / "x_texts.txt_feat.jsonl", "text_id")
    dataset = EvalTxtDataset(str(data), max_txt_length=30)
    assert ids == [dataset[i][0] for i in range(len(dataset))]
    with torch.no_grad():
        assert_close(ours, model(None, torch.stack([dataset[i][1] for i in range(len(dataset))])))


def test_images(model, tmp_path):
    rng = numpy.random.default_rng(2)
    kinds = [("RGB", "PNG"), ("RGB", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "WEBP")] * 4
    images = {10**9 + 7 * i: picture(rng, *kind) for i, kind in enumerate(kinds)}
    write_lmdb(tmp_path / "imgs", images, len(images))
    done = strobe("extract-features", "--extract-image-feats", "--image-data", tmp_path / "imgs", "--text-data",
                  tmp_path / "x_texts.jsonl", "--resume", model.file, "--img-batch-size", 5)
    assert done.returncode == 0, done.stderr
    ids, ours = features_of(tmp_path / "x_imgs.img_feat.jsonl", "image_id")
    dataset = EvalImgDataset(str(tmp_path / "imgs"), resolution=RESOLUTION)
    theirs = [dataset[i] for i in range(len(dataset))]
    assert ids == [id for id, _ in theirs]
    with torch.no_grad():
        assert_close(ours, model(torch.stack([image for _, image in theirs]), None))


def test_a_bad_image_is_skipped_and_string_ids_stay(model, tmp_path):
    rng = numpy.random.default_rng(4)
    images = {"a": picture(rng), "cut": picture(rng)[:-40], "7": picture(rng), "text": b"no image"}
    write_lmdb(tmp_path / "imgs", images, 9)  # an older builder counted lines twice
    output = tmp_path / "f.jsonl"
    done = strobe("extract-features", "--extract-image-feats", "--image-data", tmp_path / "imgs", "--resume", model.file,
                  "--image-feat-output-path", output)
    assert done.returncode == 0, done.stderr
    assert features_of(output, "image_id")[0] == [7, "a"]
    assert "image cut is skipped" in done.stderr and "image text is skipped" in done.stderr
    assert "2 images could not be read" in done.stdout


def test_wrong_use(model, tmp_path):
    for arguments, status, text in [
            (["--resume", model.file], 2, "--extract-image-feats or --extract-text-feats"),
            (["--extract-text-feats"], 2, "--resume"),
            (["--extract-text-feats", "--resume", tmp_path / "no.pt"], 1, "no.pt"),
            (["--extract-text-feats", "--resume", model.file, "--text-data", tmp_path / "no.jsonl"], 1, "no.jsonl"),
            (["--extract-text-feats", "--resume", model.file, "--vision-model", "ViT-B-16"], 1, "ViT-B-16"),
            (["--extract-text-feats", "--resume", model.file, "--precision", "fp16"], 1, "expected a GPU"),
            (["--extract-text-feats", "--resume", model.file, "--vocab", tmp_path / "no.txt"], 1, "no.txt")]:
        done = strobe("extract-features", *arguments)
        assert done.returncode == status and text in done.stderr, (arguments, done)


def top1_hits(output, target, topk):
    """The original's accuracy(), which fails with NumPy 2.4."""
    return [float((output.argmax(1) == target).sum())] * len(topk)


def test_zero_shot(model, tmp_path, monkeypatch):
    monkeypatch.setattr(zeroshot_evaluation, "accuracy", top1_hits)
    rng = numpy.random.default_rng(6)
    for name, count in (("b", 5), ("a", 4), ("10", 3)):
        (tmp_path / "test" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "test" / name / f"{i}.png").write_bytes(picture(rng, ["RGB", "P", "RGBA"][i % 3]))
    labels = tmp_path / "labels.txt"
    labels.write_text("猫\n “狗” \n飞机\n", "utf-8")
    index = tmp_path / "index.json"
    index.write_text(json.dumps(list(range(12))[::-1]))
    done = strobe("zeroshot", "--datapath", tmp_path / "test", "--label-file", labels, "--dataset", "country211", "--index",
                  index, "--save-dir", tmp_path / "out", "--resume", model.file, "--img-batch-size", 5, "--num-workers", 2)
    assert done.returncode == 0, done.stderr

    args = argparse.Namespace(datapath=str(tmp_path / "test"), img_batch_size=5, num_workers=0, context_length=52, gpu="cpu",
                              index=str(index))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        names = [line.strip() for line in labels.open(encoding="utf8")]
        classifier = zeroshot_evaluation.zero_shot_classifier(model, names, country211_templates, args)
        loader = get_zeroshot_dataset(args, image_transform(RESOLUTION)).dataloader
        top1, outputs = zeroshot_evaluation.run(model, classifier, loader, args)
    assert f"zeroshot-top1: {top1}\n" in done.stdout

    text = (tmp_path / "out" / "country211.json").read_text()
    ours = json.loads(text)
    assert json.dumps(json.loads(text, parse_float=lambda x: round(float(x), 6))) == text  # as the original writes it
    parameters, visual = (sum(p.numel() for p in module.parameters()) for module in (model, model.visual))
    predictions = ours.pop("predictions")
    assert list(ours.items())[1:] == list({
        "dataset_name": "country211", "num_trainable_params": 0, "num_params": parameters, "num_visual_params": visual,
        "num_backbone_params": parameters, "n_shot": 0, "rnd_seeds": [123]}.items())
    assert numpy.abs(numpy.array(predictions) - outputs.numpy()[None]).max() < 1e-4


def test_zero_shot_of_bad_images_and_labels(model, tmp_path):
    rng = numpy.random.default_rng(6)
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "b").mkdir(parents=True)
    (tmp_path / "test" / "a" / "1.png").write_bytes(b"broken")
    (tmp_path / "test" / "b" / "1.png").write_bytes(picture(rng))
    labels = tmp_path / "labels.txt"
    options = ["zeroshot", "--datapath", tmp_path / "test", "--label-file", labels, "--dataset", "country211", "--resume",
               model.file, "--save-dir", tmp_path]
    labels.write_text("猫\n", "utf-8")
    done = strobe(*options)
    assert done.returncode == 1 and "each of the 2 folders, found 1" in done.stderr
    labels.write_text("猫\n狗\n", "utf-8")
    done = strobe(*options)
    assert done.returncode == 0 and "a/1.png is skipped" in done.stderr and "1 images could not be read" in done.stdout
    rows = json.loads((tmp_path / "country211.json").read_text())["predictions"][0]
    assert len(rows) == 2 and rows[0] == [0.5, 0.5]


def test_similarity(model, tmp_path):
    rng = numpy.random.default_rng(8)
    file = tmp_path / "a.png"
    file.write_bytes(picture(rng, "P"))
    texts = ["杰尼龟", "“妙蛙种子”"]
    done = strobe("similarity", "--image", file, "--text", *texts, "--resume", model.file)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        image = image_transform(RESOLUTION)(Image.open(file)).unsqueeze(0)
        logits, _ = model.get_similarity(image, tokenize([_preprocess_text(text) for text in texts]))
    lines = done.stdout.splitlines()
    assert lines[0] == str(file)
    for line, text, probability, logit in zip(lines[1:], texts, logits.softmax(-1)[0], logits[0] / model.logit_scale.exp()):
        printed, word, cosine, name = line.split(maxsplit=3)
        assert word == "cosine" and name == text
        assert abs(float(printed) - probability) < 1e-4 and abs(float(cosine) - logit) < 1e-4


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
