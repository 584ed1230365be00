"""make-topk, evaluation and the transform of annotations against cn_clip's programs, on the same files; numbers against
Python's repr.

STROBE_PROGRAM names strobe, STROBE_CLIP_EVALUATION_TOOL the program built from evaluation_tool.cpp.
"""

import contextlib
import io
import json
import os
import pathlib
import random
import runpy
import struct
import subprocess
import sys

import numpy
import pytest
import torch

STROBE = os.environ["STROBE_PROGRAM"]
TOOL = os.environ["STROBE_CLIP_EVALUATION_TOOL"]


def original(module, *arguments):
    """Runs a program of cn_clip in this process; its .cuda() stays on the CPU."""
    argv, cuda = sys.argv, torch.Tensor.cuda
    sys.argv = [module, *map(str, arguments)]
    torch.Tensor.cuda = lambda self, *_, **__: self
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_module(f"cn_clip.eval.{module}", run_name="__main__")
    finally:
        sys.argv, torch.Tensor.cuda = argv, cuda


def strobe(*arguments):
    return subprocess.run([STROBE, "clip", *map(str, arguments)], capture_output=True, text=True)


def write_lines(file, objects):
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in objects), "utf-8")
    return file


def test_numbers_are_written_as_repr():
    rng = random.Random(1)
    values = [rng.choice([-1, 1]) * rng.random() * 10.0 ** rng.randrange(-25, 25) for _ in range(20_000)]
    values += [struct.unpack("d", rng.randbytes(8))[0] for _ in range(20_000)]
    values += [float(numpy.float32(value)) for value in values if abs(value) < 1e38]
    values += [float(f"{d}e{e}") for d in (1, 5, 9.5, 9.9999999999999) for e in range(-8, 20)]
    values += [float(2**53 + k) for k in range(-3, 100)] + [0.0, -0.0, 5e-324]
    values = [value for value in values if value == value and abs(value) != float("inf")]
    done = subprocess.run([TOOL], input=struct.pack(f"{len(values)}d", *values), stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().split() == [repr(value) for value in values]


def write_features(file, key, ids, features):
    return write_lines(file, [{key: id, "feature": row.tolist()} for id, row in zip(ids, features)])


@pytest.mark.parametrize("exact", [False, True])
def test_predictions(tmp_path, exact):
    """Random features, and such whose products are exact in fp32, full of ties."""
    rng = numpy.random.default_rng(3)

    def features(count):
        if exact:
            return rng.integers(-2, 3, (count, 16)).astype(numpy.float32)
        rows = rng.standard_normal((count, 64)).astype(numpy.float32)
        return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)

    images = write_features(tmp_path / "i.jsonl", "image_id", rng.permutation(10**12 + numpy.arange(300)).tolist(), features(300))
    texts = write_features(tmp_path / "t.jsonl", "text_id", list(range(90)), features(90))
    for ours, theirs in (("make-topk", "make_topk_predictions"), ("make-topk-tr", "make_topk_predictions_tr")):
        options = ("--image-feats", images, "--text-feats", texts, "--top-k", 12, "--output")
        original(theirs, *options, tmp_path / "theirs.jsonl")
        done = strobe(ours, *options, tmp_path / "ours.jsonl", "--eval-batch-size", 37)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "ours.jsonl").read_bytes() == (tmp_path / "theirs.jsonl").read_bytes()


def test_predictions_of_string_ids_and_few_candidates(tmp_path):
    images = write_features(tmp_path / "i.jsonl", "image_id", ["图", "b", 3], numpy.eye(3, dtype=numpy.float32))
    texts = write_features(tmp_path / "t.jsonl", "text_id", ["x"], numpy.array([[0, 1, 0.5]], numpy.float32))
    done = strobe("make-topk", "--image-feats", images, "--text-feats", texts, "--output", tmp_path / "o.jsonl")
    assert done.returncode == 0 and "expected at least 10 candidates, found 3" in done.stderr
    assert (tmp_path / "o.jsonl").read_text() == '{"text_id": "x", "image_ids": ["b", 3, "\\u56fe"]}\n'


def test_what_cannot_be_read_leaves_the_output_as_it_was(tmp_path):
    images = write_features(tmp_path / "i.jsonl", "image_id", [1], numpy.ones((1, 2)))
    texts = write_lines(tmp_path / "t.jsonl", ['{"text_id": 1, "feature": [1, 2]}\n', '{"text_id": 2, "feature": [1, x]}\n'])
    output = tmp_path / "o.jsonl"
    output.write_text("before")
    done = strobe("make-topk", "--image-feats", images, "--text-feats", texts, "--output", output)
    assert done.returncode == 1 and "t.jsonl, line 2" in done.stderr
    assert output.read_text() == "before" and sorted(os.listdir(tmp_path)) == ["i.jsonl", "o.jsonl", "t.jsonl"]


KINDS = {"evaluation": ("text_id", "image_ids"), "evaluation-tr": ("image_id", "text_ids")}
TEN = list(range(10))


def evaluate_both(tmp_path, kind, truth, predictions):
    query, answers = KINDS[kind]
    if not isinstance(truth, pathlib.Path):
        truth = write_lines(tmp_path / "truth.jsonl", [{query: q, answers: a} for q, a in truth])
    if not isinstance(predictions, pathlib.Path):
        predictions = write_lines(tmp_path / "predictions.jsonl", predictions)
    original(kind.replace("-", "_"), truth, predictions, tmp_path / "theirs.json")
    done = strobe(kind, truth, predictions, tmp_path / "ours.json")
    theirs = (tmp_path / "theirs.json").read_bytes()
    assert (tmp_path / "ours.json").read_bytes() == theirs
    success = json.loads(theirs)["success"]
    assert done.returncode == (0 if success else 1)
    return success


@pytest.mark.parametrize("kind", KINDS)
def test_recall(tmp_path, kind):
    rng = random.Random(7)
    query, answers = KINDS[kind]
    ids = rng.sample(range(-5, 10**10), 211)
    truth = [(q, rng.sample(range(30), rng.randrange(5))) for q in ids] + [(ids[0], [1, 2])]
    predictions = [{query: q, answers: rng.sample(range(30), 10), "other": "图"} for q in [*ids, 10**11, ids[5]]]
    assert evaluate_both(tmp_path, kind, truth, predictions)


@pytest.mark.parametrize("kind", KINDS)
def test_failures(tmp_path, kind):
    query, answers = KINDS[kind]
    good = {query: 1, answers: TEN}
    for lines in (["{\n"], ["图 not json\n"], [{answers: TEN}], [{query: 1}], [{query: 1, answers: 5}],
                  [{query: 1, answers: TEN[:9]}], [{query: 1, answers: TEN + [11]}], [{query: 1, answers: [1.5] + TEN[1:]}],
                  [{query: 1, answers: TEN[:9] + [None]}], [{query: 1, answers: TEN[:9] + [1e-7]}],
                  [{query: 1, answers: [3] * 2 + TEN[:8]}]):
        assert not evaluate_both(tmp_path, kind, [(1, [2])], [good, *lines])
    assert not evaluate_both(tmp_path, kind, [(1, [2]), (5, [])], [{query: 5, answers: TEN}])
    assert not evaluate_both(tmp_path, kind, [(1, [2])], tmp_path / "missing.jsonl")


def test_where_the_original_stumbles(tmp_path):
    """Ids that it does not take, lines and files that it fails on with errors of Python's."""
    truth = write_lines(tmp_path / "truth.jsonl", [{"text_id": "图", "image_ids": ["b"]}])
    good = {"text_id": "图", "image_ids": ["a", "b", *range(8)]}
    out = tmp_path / "out.json"
    done = strobe("evaluation", truth, write_lines(tmp_path / "p.jsonl", [good, "\n"]), out)
    assert done.returncode == 0 and json.loads(out.read_text())["scoreJson"]["r5"] == 100.0
    for bad, why in ((write_lines(tmp_path / "q.jsonl", [{**good, "text_id": 1.5}]), "invalid text_id 1.5,"),
                     (write_lines(tmp_path / "r.jsonl", ["5\n"]), "one line not containing text_id: 5")):
        done = strobe("evaluation", truth, bad, out)
        assert done.returncode == 1 and why in done.stderr and why in json.loads(out.read_text())["errorDetail"]
    done = strobe("evaluation", tmp_path / "missing.jsonl", bad, out)
    assert done.returncode == 1 and "missing.jsonl" in json.loads(out.read_text())["errorMsg"]


def test_transformed_annotations(tmp_path):
    rng = random.Random(9)
    lines = [{"text_id": t, "text": "图", "image_ids": rng.sample(["图", 7, 8, 10**11, *range(20, 60)], rng.randrange(6))}
             for t in range(100)]
    theirs = write_lines(tmp_path / "theirs.jsonl", lines)
    ours = write_lines(tmp_path / "ours.jsonl", lines)
    original("transform_ir_annotation_to_tr", "--input", theirs)
    done = strobe("transform-ir-annotation-to-tr", "--input", ours)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ours.tr.jsonl").read_bytes() == (tmp_path / "theirs.tr.jsonl").read_bytes()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
