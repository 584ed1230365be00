"""Where a training's weights come from and go: ties, --init, --resume with other data, averages; with Python's torch.

STROBE_PROGRAM names the program.
"""

import os
import random
import subprocess
import sys

import pytest
import torch

PROGRAM = os.environ["STROBE_PROGRAM"]
MODEL = {"layers": 1, "d-model": 32, "heads": 4, "d-ff": 64, "dropout": 0, "norm": "post", "tie-embeddings": "all"}
COURSE = {"batch-size": 50, "optimizer": "adamw", "lr": 2e-3, "schedule": "constant", "seed": 3, "threads": 2,
          "device": "cpu", "epochs": 2, "max-length": 8}


def strobe(*arguments, stdin=None, status=0):
    done = subprocess.run([PROGRAM, "nmt", *map(str, arguments)], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    assert done.returncode == status, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode() if status == 0 else done.stderr.decode()


def tsv(file, letters, count):
    draw = random.Random(letters)
    words = ["".join(draw.choices(letters, k=3)) for _ in range(30)]
    lines = set()
    while len(lines) < count:
        source = draw.choices(words, k=draw.randint(2, 5))
        lines.add(" ".join(source) + "\t" + " ".join(word[::-1] for word in source) + "\n")
    file.write_text("".join(sorted(lines)), encoding="utf-8")
    return file


def train(folder, data="data", out="next", status=0, **options):
    options = {**MODEL, **COURSE, **{name.replace("_", "-"): value for name, value in options.items()}}
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    return strobe("train", "--data", folder / data, "--out", folder / out, *flags, status=status)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    joint = "--vocab-size 60 --joint-vocabulary --dev-size 20 --test-size 20".split()
    strobe("prepare", "--data", folder / "data", "--input", tsv(folder / "a.tsv", "abcdef", 500), *joint)
    strobe("prepare", "--data", folder / "other", "--input", tsv(folder / "b.tsv", "uvwxyz", 500), *joint)
    train(folder, out="run", save_every=3, keep_last=3)
    return folder


def load(file):
    return torch.load(file, weights_only=True)


def test_tied_weights_are_stored_once(folder):
    found = load(folder / "run" / "model.pth")
    assert [name for name in found["model"] if "embedding" in name or "generator" in name] == \
        ["encoder.embedding.tokens.weight", "generator.bias"]
    assert not [name for name in found["model"] if name in ("encoder.norm.weight", "decoder.norm.weight")]
    assert found["config"]["norm"] == "post" and found["config"]["tie_embeddings"] == "all"
    assert found["config"]["attention_dropout"] == 0.0
    assert torch.equal(found["source_vocabulary"], found["target_vocabulary"])


def test_the_average_is_the_mean_and_translates(folder):
    run, out = folder / "run", folder / "average.pt"
    printed = strobe("average", "--folder", run, "--last", 3, "--out", out)
    files = sorted(run.glob("checkpoint-*.pt"))
    assert len(files) == 3
    assert printed == "".join(f"{file}\n" for file in files) + f"mean of 3 checkpoints written to {out}\n"
    mean, parts = load(out), [load(file)["model"] for file in files]
    assert mean["averaged"] == [str(file) for file in files]
    for name, weight in mean["model"].items():
        expected = (sum(part[name].double() for part in parts) / 3).float()
        assert torch.equal(weight, expected), name
    assert any(not torch.equal(parts[0][name], parts[2][name]) for name in parts[0])
    strobe("average", "--out", folder / "again.pt", *files)
    assert all(torch.equal(weight, mean["model"][name]) for name, weight in load(folder / "again.pt")["model"].items())

    assert strobe("translate", "--model", out, "--device", "cpu", "--max-length", 8, stdin=b"abc\n").count("\n") == 1
    assert "Bleu Score" in strobe("test", "--model", out, "--data", folder / "data", "--device", "cpu",
                                  "--max-length", 8, "--output", folder / "average.txt")


def test_averages_are_refused_by_name(folder):
    first = folder / "run" / "model.pth"
    assert "found 3" in strobe("average", "--folder", folder / "run", "--last", 99, "--out", "x.pt", status=1)
    assert "none.pt" in strobe("average", first, folder / "none.pt", "--out", "x.pt", status=1)
    assert "--out" in strobe("average", first, status=2)
    assert "--last" in strobe("average", "--out", "x.pt", status=2)
    assert not os.path.exists("x.pt")


def test_init_begins_with_the_weights_of_another_run(folder):
    # A learning rate of next to nothing leaves them as they came.
    first = folder / "run" / "model.pth"
    train(folder, init=first, lr=1e-30, epochs=1)
    before, after = load(first)["model"], load(folder / "next" / "last.pt")
    assert set(before) == set(after["model"])
    assert all(torch.allclose(before[name], after["model"][name], rtol=0, atol=1e-26) for name in before)
    assert f"Weights from {first}" in (folder / "next" / "train.log").read_text(encoding="utf-8")
    train(folder, init=folder / "run" / "checkpoint-000018.pt", epochs=1)


def test_init_and_resume_refuse_what_does_not_fit(folder):
    log = folder / "next" / "train.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("an earlier run\n")
    first = folder / "run" / "last.pt"
    foreign = folder / "foreign.pt"
    torch.save({"model": {}}, foreign)
    for option in ("init", "resume"):
        # Missing and foreign files are known before the data are read.
        missing = train(folder, data="none", status=1, **{option: folder / "none.pt"})
        assert "none.pt" in missing and "prepare" not in missing
        assert "foreign.pt" in train(folder, data="none", status=1, **{option: foreign})
        error = train(folder, data="other", status=1, **{option: first})
        assert f"{first}: its source vocabulary is not that of this run: piece " in error
        error = train(folder, heads=2, d_ff=32, status=1, **{option: first})
        assert "its configuration is not that of this run: num_heads 4, not 2; d_ff 64, not 32" in error
    assert "--init" in train(folder, init=first, resume=first, status=2)
    assert log.read_text() == "an earlier run\n"


def test_data_can_be_prepared_with_the_vocabularies_of_a_checkpoint(folder):
    strobe("prepare", "--data", folder / "tuned", "--input", folder / "b.tsv", "--vocab-from",
           folder / "run" / "model.pth")
    for side in ("source", "target"):
        assert (folder / "tuned" / "tokenizer" / f"{side}.model").read_bytes() == \
            (folder / "data" / "tokenizer" / f"{side}.model").read_bytes()
    train(folder, data="tuned", init=folder / "run" / "model.pth", epochs=1)


def test_tying_all_needs_a_joint_vocabulary(folder):
    strobe("prepare", "--data", folder / "apart", "--input", folder / "a.tsv", "--vocab-size", 60)
    error = train(folder, data="apart", status=1)
    assert "tie_embeddings all" in error and "--joint-vocabulary" in error


def test_words_are_taken_as_they_are(folder):
    strobe("prepare", "--data", folder / "words", "--input", folder / "a.tsv", "--vocab-type", "word",
           "--vocab-size", 500)
    train(folder, data="words", tie_embeddings="none", epochs=1)
    words = set((folder / "a.tsv").read_text().replace("\t", " ").split())
    out = strobe("translate", "--model", folder / "next" / "last.pt", "--device", "cpu", "--max-length", 6,
                 stdin=b"x\n")
    assert set(out.split()) <= words | {"\u2047"}
    strobe("prepare", "--data", folder / "x", "--input", folder / "a.tsv", "--vocab-type", "word", "--vocab-from", "y",
           status=2)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
