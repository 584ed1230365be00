"""Joint and word vocabularies against SentencePiece's spm_train and Python package, over made text and any Unicode.

STROBE_NMT_PARITY_TOOL names the program built from parity_tool.cpp. parity_test.py holds the other types.
"""

import json
import os
import random
import subprocess
import sys

import pytest
import sentencepiece

TOOL = os.environ["STROBE_NMT_PARITY_TOOL"]
UNK = 1
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def ask(requests):
    done = subprocess.run([TOOL], input=json.dumps(requests).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.decode("utf-8"))


def any_character(rng):
    """A code point of any plane, control characters among them, but for NUL, surrogates and what SentencePiece and TSV
    files keep for themselves: tab, and the two characters that stand for a space and an unknown one."""
    while True:
        code = rng.choice([rng.randrange(1, 0x20), rng.randrange(1, 0x80), rng.randrange(0x80, 0xA0),
                           rng.randrange(0x80, 0x3000), rng.randrange(0x2000, 0x10000), rng.randrange(1, 0x110000)])
        if not 0xD800 <= code <= 0xDFFF and code not in (0x9, 0x2581, 0x2585):
            return chr(code)


def words(rng, alphabet, count):
    return ["".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 9))) for _ in range(count)]


def made_text(rng):
    """English, Chinese and what tokenisers leave behind; some words frequent, some once."""
    vocabulary = words(rng, "abcdefghijklmnopqrstuvwxyz'@-&;", 300)
    vocabulary += words(rng, [chr(0x4E00 + i) for i in range(90)], 300)
    weights = [1 / (i + 1) for i in range(len(vocabulary))]
    rng.shuffle(vocabulary)
    return [" ".join(rng.choices(vocabulary, weights, k=rng.randrange(1, 25))) for _ in range(2000)]


def noise(rng, known):
    """Words that are known, words of any characters, and spaces in all numbers."""
    out = []
    for _ in range(rng.randrange(12)):
        out.append(rng.choice(known) if rng.random() < 0.5 else
                   "".join(any_character(rng) for _ in range(rng.randrange(1, 6))))
        out.append(" " * rng.randrange(1, 4))
    return "".join(out)


def spm_train(tmp_path, text, *flags):
    """The pieces that SentencePiece's own program finds."""
    (tmp_path / "text").write_text("".join(line + "\n" for line in text), encoding="utf-8", newline="\n")
    subprocess.run(["spm_train", f"--input={tmp_path / 'text'}", f"--model_prefix={tmp_path / 'theirs'}",
                    "--character_coverage=1.0", "--hard_vocab_limit=false", "--normalization_rule_name=identity",
                    "--minloglevel=2", "--pad_id=0", "--unk_id=1", "--bos_id=2", "--eos_id=3", *flags], check=True)
    return [line.split("\t")[0] for line in (tmp_path / "theirs.vocab").read_text(encoding="utf-8").split("\n")[:-1]]


def train_request(text, kind, size, model):
    return {"what": "train", "type": kind, "size": size, "coverage": 1.0, "normalization": "identity",
            "sentences": text, "model": model}


def without_repeats(ids):
    """A run of unknown words as SentencePiece has it: one unknown piece."""
    return [i for k, i in enumerate(ids) if not (i == UNK and k > 0 and ids[k - 1] == UNK)]


@pytest.mark.parametrize("size", [204, 100000])
def test_words(tmp_path, size):
    rng = random.Random(size)
    text = made_text(rng)
    known = sorted({word for line in text for word in line.split(" ")})
    probes = text[:500] + [noise(rng, known) for _ in range(3000)]
    model = str(tmp_path / "ours.model")
    pieces, found = ask([train_request(text, "word", size, model),
                         {"what": "encode", "model": model, "sentences": probes}])
    assert pieces == spm_train(tmp_path, text, "--model_type=word", f"--vocab_size={size}")
    assert len(pieces) == min(size, len(known) + 4)

    python = sentencepiece.SentencePieceProcessor(model_file=model)
    assert pieces == SPECIAL + [python.id_to_piece(i) for i in range(4, len(pieces))]
    unknown = 0
    for probe, answer in zip(probes, found, strict=True):
        tokens = probe.replace("\t", " ").split(" ")
        tokens = [token for token in tokens if token]
        assert answer["ids"] == [python.piece_to_id("\u2581" + token) for token in tokens]
        assert without_repeats(answer["ids"]) == python.encode(probe)
        assert answer["text"] == " ".join("\u2047" if i == UNK else token for i, token in zip(answer["ids"], tokens))
        # SentencePiece puts more spaces around an unknown piece.
        assert "".join(answer["text"].split()) == "".join(python.decode(answer["ids"]).split())
        unknown += answer["ids"].count(UNK)
    assert unknown > 1000


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_joint_subwords(tmp_path, kind):
    """As prepare fits a joint vocabulary: the sources, then the targets."""
    rng = random.Random(kind)
    text = made_text(rng)
    text = [line for line in text if line.isascii()] + [line for line in text if not line.isascii()]
    probes = text[:300] + [noise(rng, text) for _ in range(500)] + \
        ["".join(any_character(rng) for _ in range(rng.randrange(30))) for _ in range(2000)]
    model = str(tmp_path / "ours.model")
    pieces, found = ask([train_request(text, kind, 400, model), {"what": "encode", "model": model, "sentences": probes}])
    assert pieces == spm_train(tmp_path, text, f"--model_type={kind}", "--vocab_size=400")
    python = sentencepiece.SentencePieceProcessor(model_file=model)
    assert [f["ids"] for f in found] == python.encode(probes)
    assert [f["text"] for f in found] == [python.decode(ids) for ids in python.encode(probes)]
    assert [f["text"] for f in found[:300]] == text[:300]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
