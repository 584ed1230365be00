"""LMDB databases, their pickles and base64 against cn_clip's builder and datasets and Python's own modules.

STROBE_CLIP_DATA_TOOL names the program built from data_tool.cpp, STROBE_PROGRAM the strobe program.
"""

import base64
import binascii
import csv
import io
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys

import cn_clip
import lmdb
import numpy
import pytest
from cn_clip.eval.data import EvalImgDataset, EvalTxtDataset
from cn_clip.training.data import LMDBDataset
from PIL import Image

TOOL, PROGRAM = os.environ["STROBE_CLIP_DATA_TOOL"], os.environ["STROBE_PROGRAM"]
BUILDER = pathlib.Path(cn_clip.__file__).parent / "preprocess" / "build_lmdb_dataset.py"


def ask(*requests):
    done = subprocess.run([TOOL], input=json.dumps(requests).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def values(*requests):
    answers = ask(*requests)
    assert all("value" in answer for answer in answers), answers
    return [answer["value"] for answer in answers]


def strobe(*arguments, status=0):
    done = subprocess.run([PROGRAM, "clip", "build-lmdb", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)
    assert done.returncode == status, done.stderr + done.stdout
    return done


def jpeg(seed, width=40, height=30):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def write_split(folder, split, images, texts):
    """images: pairs of id text and base64 text; texts: (text_id, text, image_ids)."""
    lines = "".join(f"{key}\t{text}\n" for key, text in images)
    (folder / f"{split}_imgs.tsv").write_text(lines, encoding="utf-8")
    lines = "".join(json.dumps({"text_id": i, "text": text, "image_ids": ids}, ensure_ascii=False) + "\n" for i, text, ids in texts)
    (folder / f"{split}_texts.jsonl").write_text(lines, encoding="utf-8")


def contents(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as env, env.begin() as txn:
        return [(bytes(key), bytes(value)) for key, value in txn.cursor()]


TEXTS = [
    (0, "黑色的猫坐在沙发上", [1001, 7454547004]),
    (1, "", [1001]),
    ("a", "a", ["a"]),  # one interned string three times
    ("", "é", ["é", ""]),
    (2 ** 31, "“引号” and \"quotes\"", [-5, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, -2 ** 31 - 1, 2 ** 63 - 1, -2 ** 63]),
    (-1, "长" * 30000, [10]),  # more than a frame
    (True, "x" * 255, [None, False, 1.5, 1e16, 1e-7, -0.0]),
    ("k" * 40000, "v" * 40000, ["i" * 500, 2]),  # a frame that ends between two values
    ("多" * 100, "z" * 65535, [3]),
    (7, "y" * 65536, [4]),
    (8, "no image", []),
    (9, "emoji 😀 \u2028 line", [12]),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One split built by both; "ours" and "theirs" are their lmdb folders."""
    folder = tmp_path_factory.mktemp("data")
    images = [(str(i), base64.b64encode(jpeg(n)).decode()) for n, (_, _, ids) in enumerate(TEXTS) for i in ids if i != ""]
    images = [(k, v) for k, v in dict(images).items()]
    images[0] = (images[0][0], base64.urlsafe_b64encode(jpeg(50)).decode())
    write_split(folder, "train", images, TEXTS)
    write_split(folder, "valid", [(str(i), base64.b64encode(jpeg(i)).decode()) for i in range(12)],
                [(i, f"图片 {i}", [i]) for i in range(12)])
    done = strobe("--data_dir", folder, "--splits", "train,valid", "--lmdb_dir", folder / "ours")
    subprocess.run([sys.executable, str(BUILDER), "--data_dir", str(folder), "--splits", "train,valid", "--lmdb_dir",
                    str(folder / "theirs")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert "Finished serializing 12 valid split pairs into" in done.stdout
    return folder


def test_databases_are_equal(data):
    for split in ("train", "valid"):
        for part in ("imgs", "pairs"):
            assert contents(data / "ours" / split / part) == contents(data / "theirs" / split / part), (split, part)


def test_both_read_both(data):
    expected = [(image, text_id, text) for text_id, text, ids in TEXTS for image in ids if image != ""]
    for builder in ("ours", "theirs"):
        folder = data / builder / "valid"
        read, = values({"op": "pairs", "folder": str(folder)})
        dataset = LMDBDataset(str(folder), split="val", resolution=32)
        assert read["images"] == dataset.number_images == 12 and len(read["pairs"]) == len(dataset) == 12
        assert [pair[:3] for pair in read["pairs"]] == [[i, i, f"图片 {i}"] for i in range(12)]
        assert [base64.b64decode(pair[3]) for pair in read["pairs"]] == [jpeg(i) for i in range(12)]
        images, = values({"op": "images", "folder": str(folder / "imgs")})
        theirs = EvalImgDataset(str(folder / "imgs"), resolution=32)
        assert [int(key) for key, _ in images["images"]] == [theirs[i][0] for i in range(len(theirs))]
        assert images["claimed"] == 12
        assert dataset[3][0].shape == (3, 32, 32)
    # The pairs of the odd split too, but for the image with the empty key, which no database can hold.
    pairs = contents(data / "theirs" / "train" / "pairs")
    assert len(expected) + 1 == len(pairs) - 1


def test_pickles():
    cases = [(image, text_id, text) for text_id, text, ids in TEXTS for image in ids]
    cases += [(1, 2, "x" * n) for n in (0, 1, 2, 255, 256, 65535, 65536, 70000)]
    cases += [("ab", "ab", "ab"), ("ÿ", "ÿ", "Ā"), ("Ā", "Ā", "ÿ"), (1, 1, "1"), ("中", "中", "中")]
    written = values(*[{"op": "write_pair", "image": image, "id": text_id, "text": text} for image, text_id, text in cases])
    for case, found in zip(cases, written):
        assert base64.b64decode(found) == pickle.dumps(tuple(json.loads(json.dumps(case)))), case
    for protocol in (2, 3, 4, 5):
        records = [base64.b64encode(pickle.dumps(case, protocol)).decode() for case in cases]
        for case, found in zip(cases, values(*[{"op": "read_pair", "pickle": record} for record in records])):
            assert tuple(found[:3]) == case and [type(v) for v in found[:3]] == [type(v) for v in case]
            assert found[3] == str(case[0])


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_refused_pickles():
    cases = {
        "expected protocol 2 to 5, found 0": pickle.dumps((1, 2, "a"), 0)[:0] + b"\x80\x00N.",
        "posix.system": pickle.dumps((1, 2, Evil()), 2),
        "posix.system ": pickle.dumps((1, 2, Evil()), 4),
        "expected a tuple (image_id, text_id, text), found a list": pickle.dumps([1, 2, "a"]),
        "found a tuple of 2": pickle.dumps((1, 2)),
        "a list is no id": pickle.dumps(([1], 2, "a")),
        "expected a str as the text, found int": pickle.dumps((1, 2, 3)),
        "expected an int of 64 bits": pickle.dumps((2 ** 64, 2, "a")),
        "it ends too early": pickle.dumps((1, 2, "abc"))[:-6],
        "it ends too early ": b"",
        "opcode 0x": b"\x80\x04\x8f.",  # an empty set
        "the stack is empty": b"\x80\x04\x87.",
    }
    answers = ask(*[{"op": "read_pair", "pickle": base64.b64encode(record).decode()} for record in cases.values()])
    for expected, answer in zip(cases, answers):
        assert expected.strip() in answer.get("error", ""), (expected, answer)


def test_base64():
    rng = random.Random(2)
    texts = ["", "=", "==", "a", "ab", "abc", "abcd", "ab==", "abc=", "ab=c", "ab=c=", "a=bc", "abcd=", "abcd==", "ab==cdef",
             "-_+/", "YWJj\nZGVm", "YW Jj", "YWJjZA==tail", "YWJjZA=", "Y=W=J=j", "=YWJj", "YWJj====", "ab=\n=", "!!!!", "é!"]
    for _ in range(3000):
        texts.append("".join(rng.choice("AZaz09+/-_==\n !") for _ in range(rng.randrange(14))))
    found = values(*[{"op": "decode_base64", "text": text} for text in texts])
    for text, answer in zip(texts, found):
        try:
            expected = base64.b64encode(base64.urlsafe_b64decode(text.encode())).decode()
        except binascii.Error:
            expected = None
        assert answer == expected, text


def test_rebuilding_leaves_nothing_behind(tmp_path):
    write_split(tmp_path, "train", [(str(i), "QUJD") for i in range(30)], [(i, "t", [i]) for i in range(30)])
    strobe("--data-dir", tmp_path, "--splits", "train")
    write_split(tmp_path, "train", [("5", "QUJD"), ("6", "QUJD")], [(0, "t", [5, 6])])
    strobe("--data-dir", tmp_path, "--splits", "train")
    folder = tmp_path / "lmdb" / "train"
    assert [key for key, _ in contents(folder / "imgs")] == [b"5", b"6", b"num_images"]
    assert [key for key, _ in contents(folder / "pairs")] == [b"0", b"1", b"num_samples"]
    # What fails on the way leaves the old databases as they were.
    write_split(tmp_path, "train", [("7", "QUJD")], [(0, 5, [7])])
    error = strobe("--data-dir", tmp_path, "--splits", "train", status=1).stderr
    assert "train_texts.jsonl, line 1: expected a string as \"text\", found a number" in error
    assert [key for key, _ in contents(folder / "imgs")] == [b"5", b"6", b"num_images"]
    assert sorted(os.listdir(folder)) == ["imgs", "pairs"]


def test_growing_map(tmp_path):
    """More than the first map holds, in values of many pages."""
    rng = random.Random(6)
    images = [(str(i), base64.b64encode(rng.randbytes(900_000 + i)).decode()) for i in range(120)]
    write_split(tmp_path, "train", images, [(i, "t", [i]) for i in range(120)])
    strobe("--data_dir", tmp_path, "--splits", "train")
    found = dict(contents(tmp_path / "lmdb" / "train" / "imgs"))
    assert found.pop(b"num_images") == b"120"
    assert found == {key.encode(): text.encode() for key, text in images}


def test_duplicates_and_missing_images(tmp_path):
    write_split(tmp_path, "train", [("1", "QUJD"), ("2", "!"), ("1", "REVG")], [(0, "t", [1, 3])])
    done = strobe("--data_dir", tmp_path, "--splits", "train")
    found = dict(contents(tmp_path / "lmdb" / "train" / "imgs"))
    assert found == {b"1": b"REVG", b"2": b"!", b"num_images": b"2"}
    assert "train_imgs.tsv, line 3: image \"1\" came before and is replaced" in done.stderr
    assert "train_imgs.tsv, line 2: image \"2\" is no base64" in done.stderr
    assert "train_texts.jsonl, line 1: no image has the id \"3\"" in done.stderr
    assert "1 pairs name an image that is not there" in done.stdout


@pytest.mark.parametrize("images, texts, expected", [
    ("1 QUJD\n", "", "train_imgs.tsv, line 1: expected an image id, a tab and base64 text"),
    ("1\tQ\tR\n", "", "train_imgs.tsv, line 1: expected an image id, a tab and base64 text"),
    ("1\tQUJD\n" + "k" * 512 + "\tQUJD\n", "", "line 2: \"kkkk"),
    ("num_images\tQUJD\n", "", "cannot be an image id"),
    ("1\tQUJD\n", "{", "train_texts.jsonl, line 1: expected a JSON object"),
    ("1\tQUJD\n", "\n\n[1]", "train_texts.jsonl, line 3: expected a JSON object"),
    ("1\tQUJD\n", '{"text_id": 1, "text": "a"}', "the field \"image_ids\" is missing"),
    ("1\tQUJD\n", '{"text_id": 1, "image_ids": [1]}', "the field \"text\" is missing"),
    ("1\tQUJD\n", '{"text_id": 1, "text": "a", "image_ids": 1}', "expected a list as \"image_ids\", found a number"),
    ("1\tQUJD\n", '{"text_id": {}, "text": "a", "image_ids": [1]}', "an id is a object"),
    ("1\tQUJD\n", '{"text_id": 1, "text": "a", "image_ids": [18446744073709551616]}', "an id does not fit in 64 bits"),
    ("1\tQUJD\n", '{"text_id": 1, "text": "\\ud800", "image_ids": [1]}', "expected a JSON object"),
])
def test_bad_annotations(tmp_path, images, texts, expected):
    (tmp_path / "train_imgs.tsv").write_text(images)
    (tmp_path / "train_texts.jsonl").write_text(texts)
    assert expected in strobe("--data_dir", tmp_path, "--splits", "train", status=1).stderr


def test_misuse(tmp_path):
    write_split(tmp_path, "train", [("1", "QUJD")], [(0, "t", [1])])
    assert "valid_imgs.tsv: the file cannot be read" in strobe("--data_dir", tmp_path, "--splits", "valid", status=1).stderr
    assert "--splits" in strobe("--data_dir", tmp_path, status=2).stderr
    assert "--data_dir" in strobe("--splits", "train", status=2).stderr
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "data.mdb").write_bytes(b"not a database" * 1000)
    errors = [answer["error"] for answer in ask({"op": "images", "folder": str(tmp_path / "file")},
                                                {"op": "images", "folder": str(tmp_path)},
                                                {"op": "pairs", "folder": str(tmp_path / "none")})]
    assert "MDB_INVALID" in errors[0] and "expected an LMDB database" in errors[1] and "expected a folder with imgs/" in errors[2]
    strobe("--data_dir", tmp_path, "--splits", "train")
    database = tmp_path / "lmdb" / "train" / "imgs" / "data.mdb"
    database.write_bytes(database.read_bytes()[:2 * 4096])
    error, = ask({"op": "images", "folder": str(database.parent)})
    assert "data.mdb is cut short" in error["error"]


def test_wrong_counts(data, tmp_path):
    """An older builder counts images twice; the images that are there are read whatever it says."""
    with lmdb.open(str(tmp_path / "imgs"), map_size=2 ** 20) as env, env.begin(write=True) as txn:
        for key in (b"1", b"10", b"9", b"zebra"):
            txn.put(key, b"QUJD")
        txn.put(b"num_images", b"17")
    with lmdb.open(str(tmp_path / "pairs"), map_size=2 ** 20) as env, env.begin(write=True) as txn:
        txn.put(b"0", b"no pickle")
    found, = values({"op": "images", "folder": str(tmp_path / "imgs")})
    assert [key for key, _ in found["images"]] == ["1", "10", "9", "zebra"] and found["claimed"] == 17
    error, = ask({"op": "pairs", "folder": str(tmp_path)})
    assert "expected a count as num_samples" in error["error"]


def test_texts(data, tmp_path):
    file = tmp_path / "texts.jsonl"
    lines = [{"text_id": 5, "text": "甲"}, {"text_id": 2 ** 40, "text": "b", "image_ids": []}]
    file.write_text("\ufeff" + json.dumps(lines[0]) + " \r\n\n" + json.dumps(lines[1]), encoding="utf-8")
    assert values({"op": "texts", "file": str(file)}) == [[[5, "甲"], [2 ** 40, "b"]]]
    theirs = EvalTxtDataset(str(data / "valid_texts.jsonl"))
    assert values({"op": "texts", "file": str(data / "valid_texts.jsonl")})[0] == [list(text) for text in theirs.texts]


def test_csv(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        (tmp_path / "pictures" / f"{i}, with comma.jpg").write_bytes(jpeg(i))
    rows = [("0, with comma.jpg", 'says "hi"\nthere'), ("1, with comma.jpg", "图一"), ("none.jpg", "gone"),
            ("0, with comma.jpg", "again"), ("2, with comma.jpg", "")]
    text = "title,extra,filepath\r\n" + "".join('"{}",,"{}"\r\n'.format(t.replace('"', '""'), p) for p, t in rows)
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8", newline="")
    done = strobe("--csv", tmp_path / "pairs.csv", "--image-dir", tmp_path / "pictures", "--splits", "train", "--lmdb_dir",
                  tmp_path / "lmdb")
    assert "pairs.csv, line 5: the image \"none.jpg\" cannot be read" in done.stderr and "1 rows were left out" in done.stdout
    folder = tmp_path / "lmdb" / "train"
    read, = values({"op": "pairs", "folder": str(folder)})
    assert [pair[:3] for pair in read["pairs"]] == [[0, 0, rows[0][1]], [1, 1, "图一"], [0, 3, "again"], [2, 4, ""]]
    assert [base64.b64decode(pair[3]) for pair in read["pairs"]] == [jpeg(0), jpeg(1), jpeg(0), jpeg(2)]
    assert len(LMDBDataset(str(folder), split="val", resolution=32)) == 4
    assert [list(t) for t in EvalTxtDataset(str(folder / "texts.jsonl")).texts] == [pair[1:3] for pair in read["pairs"]]
    assert (folder / "images.tsv").read_text().splitlines()[1] == "1\t1, with comma.jpg"
    assert "expected a column \"caption\" in the first row, found \"title\", \"extra\", \"filepath\"" in strobe(
        "--csv", tmp_path / "pairs.csv", "--splits", "train", "--lmdb_dir", tmp_path / "other", "--text-column", "caption",
        status=1).stderr


def test_csv_fields(tmp_path):
    rng = random.Random(9)
    tables = []
    for i in range(60):
        rows = [["".join(rng.choice('ab,"\n é') for _ in range(rng.randrange(6))) for _ in range(rng.randint(2, 4))]
                for _ in range(rng.randrange(5))]
        text = io.StringIO()
        csv.writer(text, lineterminator=rng.choice(["\n", "\r\n"])).writerows(rows)
        (tmp_path / f"{i}.csv").write_bytes(text.getvalue().encode())
        tables.append(rows)
    assert values(*[{"op": "csv", "file": str(tmp_path / f"{i}.csv")} for i in range(60)]) == tables
    (tmp_path / "a.csv").write_text('a\n"b')
    assert "line 2: a quoted field does not end" in ask({"op": "csv", "file": str(tmp_path / "a.csv")})[0]["error"]


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
