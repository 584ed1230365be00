"""The commands from end to end on a generated corpus: prepare, train with each attention type, test, translate, misuse.

STROBE_PROGRAM names the program.
"""

import os
import random
import re
import subprocess
import sys
import zipfile

import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

PROGRAM = os.environ["STROBE_PROGRAM"]
TYPES = ["dotscale", "flash_attn", "imp_flash_attn"]
ENGLISH = "one two three four five six seven eight nine ten red green blue dog cat bird sun moon big small"
WORDS = dict(zip(ENGLISH.split(), "一二三四五六七八九十红绿蓝狗猫鸟日月大小"))
# Small enough for seconds, large enough to learn a translation word by word.
MODEL = "--layers 1 --d-model 64 --heads 4 --d-ff 128".split()
COURSE = ("--batch-size 64 --optimizer adamw --lr 4e-3 --schedule cosine --warmup 30 --epochs 48 --validate-every 16 "
          "--dropout 0.1 --seed 3 --threads 2 --device cpu").split()
NUMBER = r"-?[0-9]+(\.[0-9]+)?"
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:(INFO|WARNING|ERROR): "


def strobe(*arguments, stdin=None, status=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == status, done.stderr.decode() + done.stdout.decode()
    return done


def error_of(*arguments, status, stdin=None):
    done = strobe(*arguments, stdin=stdin, status=status)
    text = done.stderr.decode()
    assert text.strip() and "Traceback" not in text and "frame #" not in text
    return text


def sentences(count, seed):
    draw = random.Random(seed)
    pairs = set()
    while len(pairs) < count:
        words = draw.choices(list(WORDS), k=draw.randint(2, 6))
        pairs.add((" ".join(words), "".join(WORDS[word] for word in words)))
    return sorted(pairs, key=lambda pair: draw.random())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nmt")
    pairs = sentences(2200, 1)
    for name, part in (("train", pairs[:2000]), ("dev", pairs[2000:2100]), ("test", pairs[2100:])):
        (folder / f"{name}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in part), encoding="utf-8")
    strobe("nmt", "prepare", "--data", folder / "data", "--vocab-size", 80,
           *(x for name in ("train", "dev", "test") for x in (f"--{name}", folder / f"{name}.tsv")))
    return folder / "data"


@pytest.fixture(scope="module")
def runs(data):
    """The three types trained from one seed: type -> folder."""
    folders = {}
    for attn_type, spelling in zip(TYPES, ["--attn_type", "--attn-type", "--attn_type"]):
        folders[attn_type] = data.parent / attn_type
        strobe("nmt", "train", spelling, attn_type, "--data", data, "--out", folders[attn_type], *MODEL, *COURSE)
    return folders


def lines_of(folder):
    return (folder / "train.log").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("attn_type", TYPES)
def test_log_has_the_known_grammar(runs, attn_type):
    lines = lines_of(runs[attn_type])
    assert all(re.match(STAMP, line) for line in lines)
    text = [re.sub(STAMP, "", line) for line in lines]
    epochs = [line for line in text if re.fullmatch(rf"Epoch: \d+, loss: {NUMBER}, time: {NUMBER}", line)]
    dev = rf"Epoch: \d+, Dev loss: {NUMBER}, Bleu Score: {NUMBER}"
    validations = [line for line in text if re.fullmatch(dev, line)]
    tests = [line for line in text if re.fullmatch(rf"Test loss: {NUMBER},  Bleu Score: {NUMBER}", line)]
    assert (len(epochs), len(validations), len(tests)) == (48, 3, 1)
    for line in ("-------- Dataset Build! --------", "-------- Get Dataloader! --------",
                 "-------- Save Best Model! --------"):
        assert line in text
    assert any("nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0" in line for line in text)


def test_every_type_learns_the_same(runs):
    losses, scores = [], []
    for folder in runs.values():
        text = "\n".join(lines_of(folder))
        losses.append(float(re.search(r"Epoch: 1, loss: ([0-9.]+)", text)[1]))
        scores.append(float(re.search(r"Test loss: .*Bleu Score: ([0-9.]+)", text)[1]))
    assert max(losses) - min(losses) < 1e-2 * max(losses)  # rounding, grown over 32 updates
    assert min(scores) > 90 and max(scores) - min(scores) < 3, scores  # an untrained model scores 0


@pytest.mark.parametrize("attn_type", TYPES)
def test_output_scores_what_the_log_says(runs, data, attn_type):
    folder = runs[attn_type]
    outputs = (folder / "output.txt").read_text(encoding="utf-8").splitlines()
    references = [b for _, b in sentences(2200, 1)[2100:]]
    assert len(outputs) == len(references)
    hypotheses = []
    for i, (line, reference) in enumerate(zip(outputs, references)):
        prefix = f"idx:{i}{reference}|||"
        assert line.startswith(prefix)
        hypotheses.append(line[len(prefix):])
    expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="zh").score
    logged = float(re.search(r"Test loss: .*Bleu Score: ([0-9.]+)", "\n".join(lines_of(folder)))[1])
    assert logged == pytest.approx(expected, abs=1e-4)
    again = strobe("nmt", "test", "--model", folder / "model.pth", "--data", data, "--output", folder / "again.txt",
                   "--device", "cpu").stdout.decode()
    assert f"Bleu Score: {logged:.4f}" in again and "tok:zh" in again
    assert (folder / "again.txt").read_bytes() == (folder / "output.txt").read_bytes()


def test_translate_keeps_lines_and_order(runs, tmp_path):
    model = tmp_path / "alone.pth"  # nothing but the checkpoint
    model.write_bytes((runs["imp_flash_attn"] / "model.pth").read_bytes())
    lines = ["one two three", "", "dog", "   ", "big red bird sun moon", "cat cat"]
    stdin = "\n".join(lines).encode() + b"\nbad \xff\xfe bytes\nsmall dog\n"
    done = strobe("nmt", "translate", "--model", model, "--batch-size", 2, stdin=stdin)
    output = done.stdout.decode().split("\n")
    assert output[-1] == "" and len(output) - 1 == 8
    assert [i for i, line in enumerate(output[:-1]) if not line] == [1, 3, 6]
    assert "1 of 8 lines" in done.stderr.decode() and "line 7" in done.stderr.decode()
    texts = [x for line in (lines[0], lines[4]) for x in ("--text", line)]
    for options in ([], ["--beam", 1], ["--attn-type", "dotscale"]):
        alone = strobe("nmt", "translate", "--model", model, *texts, *options).stdout.decode().splitlines()
        assert len(alone) == 2
        if not options:
            assert alone == [output[0], output[4]]
    assert strobe("nmt", "translate", "--model", model, stdin=b"").stdout == b""


def test_n_best_lists(runs):
    model = runs["imp_flash_attn"] / "model.pth"
    lines = ["one two three", "", "dog", "big red bird sun moon"]
    stdin = "\n".join(lines).encode()
    best = strobe("nmt", "translate", "--model", model, "--beam", 4, stdin=stdin).stdout.decode().splitlines()
    for penalties in ([], ["--length-penalty", 1, "--word-penalty", -0.5]):
        done = strobe("nmt", "translate", "--model", model, "--beam", 4, "--n-best", 3, *penalties, stdin=stdin)
        lists = {}
        for line in done.stdout.decode().splitlines():
            number, text, features, total = line.split(" ||| ")
            assert re.fullmatch(rf"F0= {NUMBER}", features)
            lists.setdefault(int(number), []).append((text, float(features[4:]), float(total)))
        assert list(lists) == [0, 1, 2, 3] and lists[1] == [("", 0, 0)]
        for found in lists.values():
            assert len(found) <= 3 and [total for *_, total in found] == sorted((x[2] for x in found), reverse=True)
        if not penalties:
            assert [found[0][0] for found in lists.values()] == best
            assert all(log_p == total for found in lists.values() for _, log_p, total in found)
    assert "n_best" in error_of("nmt", "translate", "--model", model, "--beam", 2, "--n-best", 3, status=1)


def test_scores_of_given_translations(runs, tmp_path):
    model = runs["flash_attn"] / "model.pth"
    pairs = sentences(2200, 1)[2100:2140] + [("one", ""), ("", "一")]
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    def scores(*options):
        done = strobe("nmt", "score", "--model", model, "--input", tmp_path / "pairs.tsv", *options)
        return [[float(x) for x in line.split(" ")] for line in done.stdout.decode().splitlines()]
    tokens, sums = scores("--per-token", "--batch-size", 3), scores()
    assert len(tokens) == len(sums) == len(pairs) and len(tokens[40]) == 1  # an empty target is eos alone
    for values, (total,), (mean,) in zip(tokens, sums, scores("--normalize"), strict=True):
        assert all(value <= 0 for value in values)
        assert total == pytest.approx(sum(values), abs=1e-5 * len(values))
        assert mean == pytest.approx(total / len(values), abs=1e-5)
    # The model has learnt these: right translations are probable, those of other sentences are not.
    wrong = "".join(f"{a}\t{pairs[i - 1][1]}\n" for i, (a, _) in enumerate(pairs[:40]) if i).encode()
    wrong = [float(x) for x in strobe("nmt", "score", "--model", model, stdin=wrong).stdout.split()]
    assert sum(right > other for (right,), other in zip(sums[1:40], wrong, strict=True)) >= 37
    assert "line 2: " in error_of("nmt", "score", "--model", model, stdin=b"one\t\xe4\xb8\x80\none\n", status=1)
    assert "line 1: " in error_of("nmt", "score", "--model", model, stdin=b"one\t\xff\n", status=1)


def sacrebleu_line(metric, hypotheses, references, samples=1):
    score = metric.corpus_score(hypotheses, [references], n_bootstrap=samples)
    return score.format(width=2, signature=str(metric.get_signature()))


def test_scores_of_text_files_are_sacrebleus(tmp_path):
    rng = random.Random(4)
    references = ["".join(rng.choices(list(WORDS.values()), k=rng.randint(0, 9))) for _ in range(80)]
    systems = {name: ["".join(c for c in text if rng.random() > noise) for text in references]
               for name, noise in (("ours", 0.1), ("theirs", 0.3))}
    for name, lines in (*systems.items(), ("references", references)):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    files = ["--reference", tmp_path / "references", "--hypothesis", tmp_path / "ours"]
    metrics = {"bleu": sacrebleu.BLEU(tokenize="zh"), "chrf": sacrebleu.CHRF(), "chrf++": sacrebleu.CHRF(word_order=2)}

    lines = strobe("nmt", "test", *files, "--metrics", "bleu,chrf,chrf++").stdout.decode().splitlines()
    assert lines == [sacrebleu_line(metric, systems["ours"], references) for metric in metrics.values()]
    done = strobe("nmt", "test", *files, "--confidence", "--compare", tmp_path / "theirs").stdout.decode()
    expected = [sacrebleu_line(metrics[name], systems["ours"], references, 1000) for name in ("bleu", "chrf")]
    assert done.splitlines()[:2] == expected
    for name in ("bleu", "chrf"):
        _, scores = PairedTest([("theirs", systems["theirs"]), ("ours", systems["ours"])], {name: metrics[name]},
                               [references], "bs", 1000)()
        theirs, ours = next(results for key, results in scores.items() if key != "System")
        for role, result in (("baseline", theirs), ("system  ", ours)):
            assert f"{role} {result.score:.2f} ({result.mean:.2f} ± {result.ci:.2f})" in done
        assert f"p = {ours.p_value:.4f}" in done
    (tmp_path / "short").write_text("一\n", encoding="utf-8")
    text = error_of("nmt", "test", "--reference", tmp_path / "references", "--hypothesis", tmp_path / "short", status=1)
    assert "1 and 80" in text
    assert "--compare" in error_of("nmt", "test", *files, "--compare", tmp_path / "nothing", status=1)
    error_of("nmt", "test", "--reference", tmp_path / "references", status=2)


def test_two_text_files_are_a_test_set(runs, data, tmp_path):
    pairs = sentences(2200, 1)[2100:]
    for name, side in (("source", 0), ("reference", 1)):
        (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    model = runs["dotscale"] / "model.pth"
    options = ["--model", model, "--output", tmp_path / "output.txt", "--device", "cpu"]
    by_files = strobe("nmt", "test", *options, "--source", tmp_path / "source", "--reference", tmp_path / "reference",
                      "--compare", runs["flash_attn"] / "model.pth").stdout.decode()
    by_part = strobe("nmt", "test", *options, "--data", data).stdout.decode()
    assert by_files.startswith(by_part) and "paired bootstrap" in by_files
    assert re.search(r"^Test loss: .*\nBLEU\|nrefs:1\|case:mixed\|eff:no\|tok:zh.*\nchrF2\|nrefs:1", by_part)


def test_the_checkpoint_is_pythons(runs):
    import torch

    content = torch.load(runs["dotscale"] / "model.pth", weights_only=True)
    assert content["task"] == "nmt" and content["config"]["d_model"] == 64
    assert content["source_vocabulary"].dtype == torch.uint8
    assert all(tensor.isfinite().all() for tensor in content["model"].values())


def test_resume_needs_its_file_and_ends_as_the_whole_run(data, tmp_path):
    short = [*MODEL, "--data", data, "--batch-size", 128, "--schedule", "constant", "--warmup", 0, "--device", "cpu",
             "--validate-every", 1, "--seed", 5]
    strobe("nmt", "train", *short, "--out", tmp_path / "whole", "--epochs", 2)
    strobe("nmt", "train", *short, "--out", tmp_path / "parts", "--epochs", 1)
    strobe("nmt", "train", *short, "--out", tmp_path / "parts", "--epochs", 2, "--resume", tmp_path / "parts/last.pt")
    tail = [[re.sub(STAMP + r"|time: .*", "", line) for line in lines_of(tmp_path / name)
             if re.search("Epoch: 2|Test loss", line)][-3:] for name in ("whole", "parts")]
    assert tail[0] == tail[1] and tail[0][0].startswith("Epoch: 2, loss")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole/last.pt").read_bytes()[:5000])
    nowhere = [*MODEL, "--data", tmp_path / "nowhere", "--out", tmp_path / "none", "--device", "cpu"]
    for name, reason in (("missing.pt", "no such file"), ("cut.pt", "truncated"), ("whole/train.log", "truncated")):
        text = error_of("nmt", "train", *nowhere, "--resume", tmp_path / name, status=1)
        assert name in text and reason in text and "nowhere" not in text
    assert not (tmp_path / "none").exists()


def test_wrong_words_are_reported_before_missing_files(tmp_path):
    missing = ["--data", tmp_path / "nowhere", "--out", tmp_path / "out"]
    text = error_of("nmt", "train", "--attn_type", "flash_atn", *missing, status=2)
    assert "flash_attn" in text and "nowhere" not in text
    text = error_of("nmt", "train", "--lable-smoothing", "0.1", *missing, status=2)
    assert "--label-smoothing" in text
    text = error_of("nmt", "train", "--heads", "7", *missing, status=1)
    assert "num_heads" in text and "nowhere" not in text
    assert not (tmp_path / "out").exists()
    assert "nowhere" in error_of("nmt", "train", *missing, status=1)


def test_broken_checkpoints_are_named(runs, data, tmp_path):
    whole = (runs["dotscale"] / "model.pth").read_bytes()
    files = {"truncated.pth": whole[:len(whole) // 2], "empty.pth": b"", "text.pth": b"not a checkpoint\n" * 100}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("readme.txt", "an archive of something else")
    import torch

    torch.save({"weight": torch.ones(3)}, tmp_path / "foreign.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for name in [*files, "archive.pth", "foreign.pth", "module.pth", "missing.pth"]:
        text = error_of("nmt", "translate", "--model", tmp_path / name, "--text", "one", status=1)
        assert name in text and len(text) < 600, text
        assert name in error_of("nmt", "test", "--model", tmp_path / name, "--data", data, status=1)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
