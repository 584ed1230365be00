"""BLEU, chrF, their confidence and subwords against the programs that define them: sacreBLEU 2.6.0, NumPy's generator,
SentencePiece's spm_train and Python binding.

STROBE_NMT_PARITY_TOOL names the program built from parity_tool.cpp. The texts are generated from seeds.
"""

import json
import os
import random
import subprocess
import sys

import numpy
import pytest
import sacrebleu
import sentencepiece
from sacrebleu.metrics.bleu import _get_tokenizer
from sacrebleu.significance import PairedTest

TOOL = os.environ["STROBE_NMT_PARITY_TOOL"]
TOKENIZERS = ["zh", "13a", "char", "none"]

ALPHABETS = {
    "ascii": "".join(map(chr, range(32, 127))),
    "points": "0123456789.,-.,- ab",
    "entities": ["&quot;", "&amp;", "&lt;", "&gt;", "&amp;quot;", "<skipped>", "-", "\n", " ", "a", "1", "."],
    "latin": "aábcçdeéèfgßhijñoöøüÿ ŒŠž'’“”–—…€ ",
    "chinese": "的一是不了人我在有他这中大来上国，。！？“”‘’、；：（）《》…— 12a.",
    "edges": "\u2000\u2001\u2a6d\u2a6e\u2e7f\u2e80\u2fdf\u2fe0\u2ff0\u303f\u3040\u30ff\u3100\u312f\u3130\u319f\u31a0"
             "\u31bf\u31c0\u31ef\u31f0\u31ff\u3200\u4db5\u4db6\u4dff\u4e00\u9fbb\u9fbc\uf900\ufa2d\ufa2e\ufa30\ufa6a\ufa6b"
             "\ufa70\ufad9\ufada\ufe0f\ufe10\ufe1f\ufe20\ufe30\ufe4f\ufe50\ufeff\uff00\uffef\ufff0\ufffd\U00020000"
             "\U0002a6d6\U0002f800 a1",
    "spaces": "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000ab中.",
    "emoji": "😀👍🏽🇨🇳👨‍👩‍👧 ok中",
}


def ask(requests):
    done = subprocess.run([TOOL], input=json.dumps(requests).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.decode("utf-8"))


def sentence(rng, alphabet, longest):
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(longest + 1)))


def any_character(rng):
    """A code point of any plane, but for NUL (where SentencePiece ends a text) and surrogates."""
    while True:
        code = rng.choice([rng.randrange(1, 0x80), rng.randrange(0x80, 0x3000), rng.randrange(0x2000, 0x10000),
                           rng.randrange(0x10000, 0x30000), rng.randrange(1, 0x110000)])
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def edited(rng, text, alphabet):
    """A hypothesis for the reference `text`: some characters replaced, dropped or doubled."""
    out = []
    for c in text:
        draw = rng.random()
        out.append(rng.choice(alphabet) if draw < 0.1 else "" if draw < 0.15 else c * 2 if draw < 0.18 else c)
    return "".join(out)


def check_bleu(corpora):
    answers = ask([{"what": "bleu", "tokenizer": tokenizer, "hypotheses": hypotheses, "references": references}
                   for tokenizer, hypotheses, references in corpora])
    for (tokenizer, hypotheses, references), found in zip(corpora, answers, strict=True):
        metric = sacrebleu.BLEU(tokenize=tokenizer)
        expected = metric.corpus_score(hypotheses, [references])
        assert found["text"] == str(expected), (tokenizer, hypotheses[:3], references[:3])
        assert found["signature"] == str(metric.get_signature())
        assert found["score"] == pytest.approx(expected.score, rel=1e-13, abs=0)  # a few roundings of exp and log


def check_tokens(tokenizer, lines):
    python = _get_tokenizer(tokenizer)()
    found, = ask([{"what": "tokenize", "tokenizer": tokenizer, "sentences": lines}])
    assert found == [" ".join(python(line.rstrip()).split()) for line in lines]


def test_the_oracle_is_the_version_the_signature_names():
    assert sacrebleu.__version__ == "2.6.0"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_code_point_is_tokenized_alike(tokenizer):
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    check_tokens(tokenizer, ["x" + "y".join(points[i:i + 512]) + "1" for i in range(0, len(points), 512)])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tokens(tokenizer):
    rng = random.Random(tokenizer)
    check_tokens(tokenizer, [sentence(rng, alphabet, 40) for alphabet in ALPHABETS.values() for _ in range(1000)])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_bleu(tokenizer):
    rng = random.Random(tokenizer)
    corpora = []
    for alphabet in ALPHABETS.values():
        for size, longest in [(1, 8), (1, 4), (3, 5), (200, 30), (20, 400)]:
            references = [sentence(rng, alphabet, longest) for _ in range(size)]
            hypotheses = [edited(rng, r, alphabet) if rng.random() < 0.9 else "" for r in references]
            corpora.append((tokenizer, hypotheses, references))
    check_bleu(corpora)


def test_bleu_of_one_sentence():
    pairs = [("他说“你好”。", "他说“您好”。"), ("", ""), ("", "a b c d"), ("a", ""), ("a b c", "a b c"),
             ("a b c d", "a b c d"), ("x y z w", "a b c d"), ("a x y z", "a b c d"), ("the the the", "the cat is here")]
    check_bleu([(tokenizer, [hyp], [ref]) for tokenizer in TOKENIZERS for hyp, ref in pairs])


METRICS = {"bleu": lambda tokenizer: sacrebleu.BLEU(tokenize=tokenizer), "chrf": lambda _: sacrebleu.CHRF(),
           "chrf++": lambda _: sacrebleu.CHRF(word_order=2)}


def corpora(rng, sizes, noise=0.9):
    """(hypotheses, references), empty and odd lines among them."""
    result = []
    for alphabet in ALPHABETS.values():
        for size, longest in sizes:
            references = [sentence(rng, alphabet, longest) for _ in range(size)]
            result.append(([edited(rng, r, alphabet) if rng.random() < noise else "" for r in references], references))
    return result


def words_and_signs(rng):
    """What chrF++ splits: signs before, behind, around and alone."""
    return " ".join(rng.choice(["", "(", "'", "…", "。"]) + rng.choice(["a", "bc", "def", "中", "-", "", "1.5"]) +
                    rng.choice(["", ",", ".", ")", "!?"]) for _ in range(rng.randrange(12)))


@pytest.mark.parametrize("name", ["chrf", "chrf++"])
def test_chrf(name):
    rng = random.Random(name)
    cases = corpora(rng, [(1, 8), (1, 4), (3, 5), (200, 30), (20, 400)])
    cases += [([words_and_signs(rng) for _ in range(n)], [words_and_signs(rng) for _ in range(n)]) for n in (1, 2, 300)]
    cases += [([hyp], [ref]) for hyp, ref in [("", ""), ("", "a b"), ("a", ""), ("a b c", "abc"), ("他说“你好”。", "他说“您好”。")]]
    answers = ask([{"what": "score", "metric": name, "tokenizer": "none", "hypotheses": hypotheses,
                    "references": references, "samples": 1, "seed": 1} for hypotheses, references in cases])
    for (hypotheses, references), found in zip(cases, answers, strict=True):
        metric = METRICS[name](None)
        expected = metric.corpus_score(hypotheses, [references])
        assert f"{found['name']} = {found['score']:.2f}" == str(expected)
        assert found["score"] == pytest.approx(expected.score, rel=1e-13, abs=0)
        assert found["signature"].replace("bs:1|seed:1|", "") == str(metric.get_signature())


def test_random_numbers_are_numpys():
    rng = random.Random(5)
    for seed in [0, 1, 12345, 2**32 - 1, 2**32, 2**63 + 11]:
        bounds = [rng.choice([1, 2, 3, 7, 1000, 2**16, 2**31 + 1, 2**32 - 2]) for _ in range(3000)]
        generator = numpy.random.default_rng(seed)
        # choice() draws as integers() does; below 2^32 both take half a 64-bit number a draw.
        expected = [int(generator.integers(0, bound)) for bound in bounds]
        assert ask([{"what": "random", "seed": seed, "bounds": bounds}]) == [expected]


def confidence_cases(rng):
    for name in METRICS:
        for tokenizer in TOKENIZERS if name == "bleu" else ["none"]:
            for hypotheses, references in corpora(rng, [(7, 60), (90, 40)], noise=0.97):
                yield name, tokenizer, hypotheses, references


def test_confidence_is_sacrebleus():
    cases = [(*case, 100) for case in confidence_cases(random.Random(6))]
    cases += [("bleu", "13a", *corpora(random.Random(7), [(400, 40)])[0], 1000)]
    answers = ask([{"what": "score", "metric": name, "tokenizer": tokenizer, "hypotheses": hypotheses,
                    "references": references, "samples": samples, "seed": 12345}
                   for name, tokenizer, hypotheses, references, samples in cases])
    for (name, tokenizer, hypotheses, references, samples), found in zip(cases, answers, strict=True):
        metric = METRICS[name](tokenizer)
        expected = metric.corpus_score(hypotheses, [references], n_bootstrap=samples)
        assert found["signature"] == str(metric.get_signature())
        assert found["mean"] == pytest.approx(float(expected._mean), rel=1e-13, abs=0), (name, tokenizer)
        assert found["half_width"] == pytest.approx(float(expected._ci), rel=1e-12, abs=1e-12), (name, tokenizer)


def test_paired_bootstrap_is_sacrebleus():
    rng = random.Random(8)
    cases = [(*case, 300) for case in confidence_cases(rng)] + [("chrf", "none", *corpora(rng, [(200, 30)])[0], 1000)]
    requests, expectations = [], []
    for name, tokenizer, baseline, references, samples in cases:
        share = rng.choice([0, 0.05, 0.5])  # of the sentences that differ: the same system, one much like it, another
        system = [edited(rng, text, "ab c") if rng.random() < share else text for text in baseline]
        requests.append({"what": "compare", "metric": name, "tokenizer": tokenizer, "baseline": baseline,
                         "hypotheses": system, "references": references, "samples": samples, "seed": 12345})
        metric = METRICS[name](tokenizer)
        _, scores = PairedTest([("baseline", baseline), ("system", system)], {name: metric}, [references], "bs",
                               samples)()
        expectations.append(next(results for key, results in scores.items() if key != "System"))
    for found, (baseline, system) in zip(ask(requests), expectations, strict=True):
        assert found["p_value"] == system.p_value
        for ours, theirs in ((found["baseline"], baseline), (found["system"], system)):
            assert ours[0] == pytest.approx(float(theirs.mean), rel=1e-13, abs=0)
            assert ours[1] == pytest.approx(float(theirs.ci), rel=1e-12, abs=1e-12)


def training_text(rng):
    """Sentences with words that recur, in two scripts, and punctuation that NFKC would rewrite."""
    english = ["".join(rng.choice("abcdefghiklmnoprstuvwy") for _ in range(rng.randrange(1, 9))) for _ in range(400)]
    chinese = ["".join(chr(rng.randrange(0x4E00, 0x4E80)) for _ in range(rng.randrange(1, 4))) for _ in range(400)]
    lines = []
    for _ in range(3000):
        words = rng.choices(english, k=rng.randrange(2, 9))
        lines.append(" ".join(words).capitalize() + rng.choice(".!?"))
        lines.append("".join(rng.choices(chinese, k=rng.randrange(2, 9))) + rng.choice("。！？，“”（）１２"))
    return lines


def spm_train(tmp_path, text, kind, normalization):
    """The pieces that SentencePiece's own program finds. The same release: others break ties in other ways."""
    (tmp_path / "text").write_text("".join(line + "\n" for line in text), encoding="utf-8")
    subprocess.run(["spm_train", f"--input={tmp_path / 'text'}", f"--model_prefix={tmp_path / 'theirs'}",
                    f"--model_type={kind}", "--vocab_size=800", "--character_coverage=1.0", "--hard_vocab_limit=false",
                    f"--normalization_rule_name={normalization}", "--minloglevel=2",
                    "--pad_id=0", "--unk_id=1", "--bos_id=2", "--eos_id=3"], check=True)
    return [line.split("\t")[0] for line in (tmp_path / "theirs.vocab").read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("normalization", ["identity", "nmt_nfkc"])
def test_subwords(tmp_path, kind, normalization):
    rng = random.Random(f"{kind} {normalization}")
    text = training_text(rng)
    probes = text[:1000] + ["".join(any_character(rng) for _ in range(rng.randrange(40))) for _ in range(2000)]
    probes += [sentence(rng, alphabet, 40) for alphabet in ALPHABETS.values() for _ in range(200)]
    model = str(tmp_path / "ours.model")
    pieces, found = ask([{"what": "train", "type": kind, "size": 800, "coverage": 1.0, "normalization": normalization,
                          "sentences": text, "model": model},
                         {"what": "encode", "model": model, "sentences": probes}])
    assert pieces == spm_train(tmp_path, text, kind, normalization)

    python = sentencepiece.SentencePieceProcessor(model_file=model)
    assert pieces == [python.id_to_piece(i) for i in range(800)]
    assert (python.pad_id(), python.unk_id(), python.bos_id(), python.eos_id()) == (0, 1, 2, 3)
    assert [f["ids"] for f in found] == python.encode(probes)
    assert [f["text"] for f in found] == [python.decode(ids) for ids in python.encode(probes)]
    if normalization == "identity":
        assert [f["text"] for f in found[:1000]] == text[:1000]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
