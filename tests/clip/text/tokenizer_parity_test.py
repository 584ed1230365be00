"""The tokenizer against cn_clip's, and what it takes from Unicode against Python's unicodedata.

STROBE_CLIP_TOKENIZER_TOOL names the program built from tokenizer_tool.cpp. Ours follows Unicode 14.0; where Python's
tables are newer, what was assigned since then is left out.
"""

import json
import os
import random
import subprocess
import sys
import unicodedata

import pytest
from cn_clip.clip import tokenize
from cn_clip.clip.bert_tokenizer import BasicTokenizer, _is_control, _is_punctuation, _is_whitespace
from cn_clip.eval.data import _preprocess_text

TOOL = os.environ["STROBE_CLIP_TOKENIZER_TOOL"]
PART, DROPPED, SPACE, IDEOGRAPH, PUNCTUATION = range(5)
# What Unicode 15.0 to 16.0 assigned; empty for Python 3.11, whose tables are those of 14.0.
LATER = set() if unicodedata.unidata_version == "14.0.0" else {
    c for c in range(0x110000) if unicodedata.category(chr(c)) != "Cn" and unicodedata.ucd_3_2_0.category(chr(c)) == "Cn"}

CORPUS = [
    "杰尼龟 Pikachu123", "ＡＢＣ１２３", "İstanbul ΣΑΣ", "“花”…—‘叶’", "a\u200bb\ufeffc", "👍🏽 👨‍👩‍👧 🇨🇳 ❤️", "é naïve café",
    "한국어 텍스트", "テスト がぎ ぱ", "㐀㐁𠀀𠀁𪜀𫝀𫠠", "\uf900\ufa0e\U0002f800", "①½ﬁ²", "[CLS] [UNK] [MASK]", "a" * 200, "a" * 201,
    "é" * 200, "中" * 250, "a\u2028b\u2029c\u0085d\u001ce", "\ufffd中\ufffd", "\ue000 \u0378 \U000e0001", "", " ", "\n",
    "的" * 49, "的" * 50, "的" * 51, "的" * 60, "un##aff", "##a", "#", "word\u0301\u0327ing", "ΑΣ. ΑΣ' ΑΣʼΑ Σ ΑΣ\u0301",
    "x\u00a0y\u3000z\u202fw", "\t一\r二\n三\x0b四\x0c五", "\u180e\u00ad\u2060", "Ⅷ ⅷ Ⓐ", "ß ẞ ŉ ǰ", "\u302e\u0323\u1d165\u0301",
    "q\u0307\u0323 q\u0323\u0307", "$^`~+<=>|", "，。！？；：「」『』（）《》〈〉【】", "100%的￥5.99", "http://a.b/c?d=e", "\u0f71\u0f72\u0f74",
    "a\U0001d165b\U0001d16d", "\U00016ff0\u0301\U00016ff1", "ﷺ", "ﾃｽﾄ", "ㅎㅏㄴ", "क़ क्षि", "ไทย", "עִבְרִית", "عَرَبِيّ",
]


def ask(request):
    done = subprocess.run([TOOL], input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


ALPHABETS = [
    list(range(0x20, 0x7F)), list(range(0x4E00, 0x4F00)) + list(range(0x3400, 0x3410)) + list(range(0xF900, 0xFB00)),
    list(range(0, 0x100)), list(range(0x300, 0x370)), list(range(0x370, 0x400)), list(range(0x2000, 0x2070)),
    list(range(0x1F300, 0x1F650)) + [0x200D, 0xFE0F, 0x1F3FB], list(range(0x3000, 0x3100)), list(range(0xAC00, 0xAC40)),
    [0x20, 0x20, 0x3A3, 0x3C3, 0x130, 0x49, 0x27, 0x2E, 0xAD, 0x301, 0x41, 0x61], list(range(0xFF00, 0xFF60)),
    [0x302E, 0x302F, 0x1D165, 0x1D16D, 0x16FF0, 0x301, 0x323, 0x327, 0x61], [ord(c) for c in "的一是不了人我在有 abc,.12"],
]


def fuzzed(rng):
    """Runs of one alphabet each, or of any code point."""
    text = []
    for _ in range(rng.randrange(1, 5)):
        length = rng.randrange(1, 9)
        if rng.random() < 0.25:
            text += (rng.randrange(0x110000) for _ in range(length))
        else:
            text += rng.choices(ALPHABETS[rng.randrange(len(ALPHABETS))], k=length)
    return "".join(chr(c) for c in text if not 0xD800 <= c <= 0xDFFF and c not in LATER)


def test_corpus():
    for length in (2, 3, 52, 512):
        assert ask({"what": "tokenize", "texts": CORPUS, "context_length": length}) == tokenize(CORPUS, length).tolist()


def test_fuzzed_texts():
    rng = random.Random(20)
    texts = [fuzzed(rng) for _ in range(100_000)]
    ours = ask({"what": "tokenize", "texts": texts, "context_length": 52})
    theirs = tokenize(texts, 52).tolist()
    wrong = [text for text, a, b in zip(texts, ours, theirs) if a != b]
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:3]!r}"
    assert len({id for row in theirs for id in row}) > 3000  # they are not all [UNK]
    assert ask({"what": "normalize", "texts": texts}) == [_preprocess_text(text) for text in texts]


def role(char, basic=BasicTokenizer()):
    if ord(char) in (0, 0xFFFD) or _is_control(char):
        return DROPPED
    if _is_whitespace(char) or char.isspace():
        return SPACE
    if basic._is_chinese_char(ord(char)):
        return IDEOGRAPH
    return PUNCTUATION if _is_punctuation(char) else PART


def test_every_code_point():
    basic = BasicTokenizer()
    expected = []
    for c in range(0x110000):
        char = chr(c)
        if 0xD800 <= c <= 0xDFFF or c in LATER:
            continue
        row = [c, role(char), char.lower(), basic._run_strip_accents(char), ("aΣ" + char).lower(), ("aΣ" + char + "b").lower()]
        if row[1:] != [PART, char, char, "aς" + char, "aς" + char + "b"]:
            expected.append(row)
    ours = [row for row in ask({"what": "code points"}) if row[0] not in LATER]
    wrong = [(a, b) for a, b in zip(ours, expected) if a != b]
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:3]!r}"
    assert len(ours) == len(expected)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
