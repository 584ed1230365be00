"""The demo in small: from the emoji to a sheet of pictures, each step by the program's own commands.

STROBE_PROGRAM names the program.
"""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image


def strobe(*arguments):
    return subprocess.run([os.environ["STROBE_PROGRAM"], "clip", *map(str, arguments)], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def test_from_emoji_to_a_sheet_of_pictures(tmp_path):
    data, lmdb = tmp_path / "data", tmp_path / "data/lmdb"
    assert "train: 192 images, 192 texts" in strobe("demo-data", "--data-dir", data, "--limit", 24)
    strobe("build-lmdb", "--data-dir", data, "--splits", "train,valid,test")
    strobe("train", "--train-data", lmdb / "train", "--val-data", lmdb / "valid", "--vision-model", "ViT-mini-16-96",
           "--text-model", "BERT-mini-chinese", "--use-flash-attention", "--batch-size", 48, "--valid-batch-size", 12,
           "--max-epochs", 1, "--lr", 1e-3, "--warmup", 1, "--num-workers", 1, "--logs", tmp_path, "--name", "run",
           "--device", "cpu")
    model = tmp_path / "run/checkpoints/epoch_latest.pt"
    texts = data / "test_texts.jsonl"
    strobe("extract-features", "--resume", model, "--extract-image-feats", "--image-data", lmdb / "test/imgs",
           "--extract-text-feats", "--text-data", texts, "--device", "cpu")
    predictions = tmp_path / "predictions.jsonl"
    strobe("make-topk", "--image-feats", data / "test_imgs.img_feat.jsonl", "--text-feats",
           data / "test_texts.txt_feat.jsonl", "--output", predictions)
    recall = tmp_path / "recall.json"
    strobe("evaluation", texts, predictions, recall)
    result = json.loads(recall.read_text())
    assert result["success"] and 0 <= result["scoreJson"]["r1"] <= result["scoreJson"]["r10"] <= 100
    sheet = tmp_path / "sheet.png"
    rows = strobe("picture-sheet", "--predictions", predictions, "--image-data", lmdb / "test/imgs", "--text-data", texts,
                  "--output", sheet, "--top-k", 3, "--side", 32)
    assert rows.count("row ") == 12 and json.loads(texts.read_text().splitlines()[0])["text"] in rows
    with Image.open(sheet) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (3 * 36 + 4, 12 * 36 + 4))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
