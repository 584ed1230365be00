"""The sampler's order and the loader's batches against torch's DistributedSampler and cn_clip's dataset.

STROBE_CLIP_DATA_TOOL names the program built from data_tool.cpp.
"""

import base64
import io
import json
import math
import os
import pickle
import subprocess
import sys

import lmdb
import numpy
import pytest
from cn_clip.training.data import LMDBDataset, pad_dataset
from PIL import Image
from torch.utils.data.distributed import DistributedSampler

TOOL = os.environ["STROBE_CLIP_DATA_TOOL"]
PAIRS, SIDE = 23, 32


def ask(*requests):
    done = subprocess.run([TOOL], input=json.dumps(requests).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_order():
    tables = []
    for samples in (1, 2, 7, 100, 1001, 30000):
        for world, batch in ((1, 1), (1, 32), (2, 16), (3, 5), (8, 4)):
            for seed, epoch in ((123, 0), (123, 3), (0, 1), (2 ** 40 + 5, 7)):
                tables.append({"op": "sampler", "samples": samples, "batch": batch, "world": world, "seed": seed, "epoch": epoch})
    for table, answer in zip(tables, ask(*tables)):
        padded = math.ceil(table["samples"] / (table["batch"] * table["world"])) * table["batch"] * table["world"]
        for rank, order in enumerate(answer["value"]):
            sampler = DistributedSampler(range(padded), table["world"], rank, shuffle=True, seed=table["seed"])
            sampler.set_epoch(table["epoch"])
            assert order == [index % table["samples"] for index in sampler], table


def jpeg(seed):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=numpy.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_database(folder, items):
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2 ** 24) as env, env.begin(write=True) as txn:
        for key, value in items.items():
            txn.put(key.encode(), value)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A whole data set, and the same with a broken sample of each kind."""
    images = {str(100 + i): base64.b64encode(jpeg(i)) for i in range(PAIRS)}
    pairs = {str(i): pickle.dumps((100 + i, i, f"text {i}")) for i in range(PAIRS)}
    out = {}
    for name in ("whole", "broken"):
        folder = tmp_path_factory.mktemp(name)
        if name == "broken":
            del images["103"]
            images["105"] = b"AAA"
            images["107"] = base64.b64encode(jpeg(7)[:400])
            images["109"] = base64.b64encode(b"GIF89a...")
            pairs["11"] = pairs["11"][:-4]
            del pairs["13"]
            pairs["15"] = pickle.dumps((115, 15, "!cannot be tokenized"))
        write_database(folder / "imgs", {**images, "num_images": str(PAIRS).encode()})
        write_database(folder / "pairs", {**pairs, "num_samples": str(PAIRS).encode()})
        out[name] = folder
    return out


def load_all(folder, *changes):
    request = {"op": "load_pairs", "folder": str(folder), "resolution": SIDE, "workers": 2, "ahead": 2, "batch": 4, "rank": 0,
               "world": 1, "seed": 123, "epoch": 0, "start": 0, "augment": False, "limit": -1}
    return [answer.get("value", answer) for answer in ask(*({**request, **change} for change in changes))]


def load(folder, **changes):
    return load_all(folder, changes)[0]


def unpack(text, dtype, shape):
    return numpy.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def test_batches_equal_the_original(folders):
    dataset = LMDBDataset(str(folders["whole"]), split="val", resolution=SIDE)
    pad_dataset(dataset, 8)
    for rank in (0, 1):
        epoch = load(folders["whole"], rank=rank, world=2, epoch=2)
        sampler = DistributedSampler(dataset, 2, rank, shuffle=True, seed=123)
        sampler.set_epoch(2)
        order = list(sampler)
        assert epoch["num_samples"] == len(dataset) == 24 and epoch["num_batches"] == len(epoch["batches"]) == 3
        assert epoch["skips"] == [] and epoch["skipped"] == 0
        for i, batch in enumerate(epoch["batches"]):
            indices = order[4 * i:4 * i + 4]
            assert batch["samples"] == [index % PAIRS for index in indices]
            images = unpack(batch["images"], numpy.uint8, (4, SIDE, SIDE, 3))
            for image, index in zip(images, indices):
                expected = dataset.transform.transforms[1](dataset.transform.transforms[0](
                    Image.open(io.BytesIO(jpeg(index % PAIRS)))))
                assert (image == numpy.asarray(expected)).all()
            texts = unpack(batch["texts"], numpy.int64, (4, 8))
            assert [bytes(row[row > 0].tolist()).decode() for row in texts] == [f"text {s}"[:8] for s in batch["samples"]]
            assert unpack(batch["lengths"], numpy.int32, (4,)).tolist() == [len(f"text {s}"[:8]) for s in batch["samples"]]


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("name", ["whole", "broken"])
def test_the_same_for_any_threads(folders, name, augment):
    threads = [(1, 1), (2, 2), (5, 3), (3, 20)]
    expected, *others = load_all(folders[name], *({"workers": w, "ahead": a, "augment": augment} for w, a in threads))
    assert len(expected["batches"]) == 6
    assert all(other == expected for other in others)
    # From the middle of an epoch, and abandoned in it.
    parts = [(4, -1), (2, 2), (0, 0), (0, 1), (6, -1)]
    found = load_all(folders[name], *({"start": start, "limit": limit, "augment": augment} for start, limit in parts))
    for (start, limit), part in zip(parts, found):
        assert part["batches"] == expected["batches"][start:][:None if limit < 0 else limit]
    assert load(folders[name], epoch=1, augment=augment)["batches"] != expected["batches"]


def test_augmentation_depends_on_the_epoch(folders):
    first, second = (load(folders["whole"], epoch=epoch, augment=True) for epoch in (0, 1))
    pictures = []
    for epoch in (first, second):
        by_sample = {}
        for batch in epoch["batches"]:
            by_sample.update(zip(batch["samples"], unpack(batch["images"], numpy.uint8, (4, -1)).tolist()))
        pictures.append(by_sample)
    assert set(pictures[0]) == set(range(PAIRS))
    assert sum(pictures[0][i] != pictures[1][i] for i in range(PAIRS)) > PAIRS / 2


def test_broken_samples_are_replaced(folders):
    whole, broken = load(folders["whole"]), load(folders["broken"])
    bad = {3: "no image has the key \"103\"", 5: "image \"105\" is no base64", 7: "cut short", 9: "GIF is not supported",
           11: "ends too early", 13: "no pair has the key \"13\"", 15: "cannot be tokenized"}
    names = {sample: str(sample if sample in (11, 13) else 100 + sample) for sample in bad}
    assert broken["skipped"] == len(broken["skips"]) == len(bad)
    for sample, why in bad.items():
        assert len([1 for key, text in broken["skips"] if key == names[sample] and why in text]) == 1, (sample, broken["skips"])
    # Good samples keep their places; each bad one's place has the sample half an epoch on, or the next good one after it.
    order = [sample for batch in whole["batches"] for sample in batch["samples"]]
    found = [sample for batch in broken["batches"] for sample in batch["samples"]]
    assert len(found) == len(order) == 24
    for i, sample in enumerate(order):
        after = [s for s in (order[(i + 12 + j) % 24] for j in range(24)) if s not in bad]
        assert found[i] == (after[0] if sample in bad else sample)


def test_ranks_stay_equal(folders):
    ranks = [load(folders["broken"], rank=rank, world=3, batch=2) for rank in range(3)]
    assert [len(rank["batches"]) for rank in ranks] == [4, 4, 4]
    assert all(len(batch["samples"]) == 2 for rank in ranks for batch in rank["batches"])


def test_failures(folders, tmp_path):
    write_database(tmp_path / "imgs", {"num_images": b"0"})
    write_database(tmp_path / "pairs", {**{str(i): pickle.dumps((i, i, "t")) for i in range(3)}, "num_samples": b"3"})
    answer = load(tmp_path, batch=2)
    assert "none of 4 samples tried in a row can be read; the last: " in answer["error"] and "no image has the key" in answer["error"]
    write_database(tmp_path / "a" / "imgs", {"1": base64.b64encode(jpeg(1)), "num_images": b"1"})
    write_database(tmp_path / "a" / "pairs", {"0": pickle.dumps((1, 1, "!?")), "num_samples": b"1"})
    assert load(tmp_path / "a") == {"exception": "the tokenizer fell over"}
    write_database(tmp_path / "b" / "imgs", {"num_images": b"0"})
    write_database(tmp_path / "b" / "pairs", {"num_samples": b"0"})
    assert "expected samples" in load(tmp_path / "b")["error"]
    assert "rank 3 of 2" in load(folders["whole"], rank=3, world=2)["error"]


def test_images_for_evaluation(folders):
    request = {"op": "load_images", "resolution": SIDE, "ahead": 2, "batch": 5}
    for workers in (1, 3):
        whole, broken = (answer["value"] for answer in ask(
            {**request, "folder": str(folders["whole"] / "imgs"), "workers": workers},
            {**request, "folder": str(folders["broken"] / "imgs"), "workers": workers}))
        keys = [str(100 + i) for i in range(PAIRS)]
        assert [batch["keys"] for batch in whole["batches"]] == [keys[i:i + 5] for i in range(0, PAIRS, 5)]
        pictures = {}
        for batch in whole["batches"]:
            pictures.update(zip(batch["keys"], unpack(batch["images"], numpy.uint8, (len(batch["keys"]), -1)).tolist()))
        assert [key for batch in broken["batches"] for key in batch["keys"]] == [
            key for key in keys if key not in ("103", "105", "107", "109")]
        assert [key for key, _ in broken["skips"]] == ["105", "107", "109"]
        for batch in broken["batches"]:
            found = unpack(batch["images"], numpy.uint8, (len(batch["keys"]), -1)).tolist()
            assert found == [pictures[key] for key in batch["keys"]]


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
