"""The original's files: read tensor by tensor, written so that the original loads them, damaged ones refused."""

import argparse
import collections
import io
import sys
import zipfile

import numpy
import pytest
import torch
from cn_clip.clip import model as clip_model

import files


def save(path, content, **how):
    torch.save(content, path, **how)
    return path


def as_written_by_old_torch(path):
    """Without the records that torch added after 1.13."""
    source = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if not name.endswith((".format_version", ".storage_alignment", "byteorder", "serialization_id")):
                new.writestr(name, old.read(name))


@pytest.mark.parametrize("vision", ["vit", "resnet"])
def test_reads_every_tensor(tmp_path, vision):
    model = files.build(files.VIT if vision == "vit" else files.RESNET)
    with files.stored_on("cuda:3"):
        path = save(tmp_path / "c.pt", files.checkpoint(model))
    found = files.tool("read", path, tmp_path / "out")
    files.assert_same(found["state"], files.bare(model.state_dict()))
    assert (found["epoch"], found["step"], found["name"], found["optimizer"]) == (3, 210, "run 名", None)
    as_written_by_old_torch(path)
    files.assert_same(files.tool("read", path, tmp_path / "out")["state"], files.bare(model.state_dict()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_loaded_into_fp32(tmp_path, dtype):
    model = files.build()
    state = collections.OrderedDict((k, v.to(dtype)) for k, v in model.state_dict().items())
    path = save(tmp_path / "c.pt", files.checkpoint(model, state_dict=state))
    shapes = save(tmp_path / "shapes", files.bare(model.state_dict()))
    files.assert_same(files.tool("load", path, shapes, tmp_path / "out"),
                      {k: v.float() for k, v in files.bare(state).items()})


def test_prefix_and_pooler_are_handled_key_by_key(tmp_path):
    model = files.build()
    expected = files.bare(model.state_dict())
    state = {("module." if i % 3 else "") + k: v for i, (k, v) in enumerate(expected.items())}
    state["module.bert.pooler.dense.weight"] = state["bert.pooler.dense.bias"] = torch.ones(3)
    path = save(tmp_path / "c.pt", files.checkpoint(model, state_dict=state))
    files.assert_same(files.tool("read", path, tmp_path / "out")["state"], expected)
    plain = save(tmp_path / "plain.pt", state)
    files.assert_same(files.tool("read", plain, tmp_path / "out")["state"], expected)


@pytest.mark.parametrize("vision", [files.VIT, files.RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("converted", [True, False])
def test_reads_runs_with_flash_attention(tmp_path, vision, converted):
    model = files.build(vision, flash=True)
    expected = clip_model.convert_state_dict(dict(model.state_dict()))
    state = clip_model.convert_state_dict(model.state_dict()) if converted else model.state_dict()
    if converted:  # the chunks share a storage
        names = [f"module.bert.encoder.layer.0.attention.self.{part}.weight" for part in ("query", "value")]
        assert len({state[name].untyped_storage().data_ptr() for name in names}) == 1
    path = save(tmp_path / "c.pt", files.checkpoint(model, state_dict=state))
    files.assert_same(files.tool("read", path, tmp_path / "out")["state"], files.bare(expected))


@pytest.mark.parametrize("grid", [3, 7])
def test_resizes_positions_as_the_original(tmp_path, grid):
    model = files.build()
    larger = files.build(image_resolution=16 * grid)
    path = save(tmp_path / "c.pt", files.checkpoint(model))
    shapes = save(tmp_path / "shapes", files.bare(larger.state_dict()))
    expected = dict(model.state_dict())
    clip_model.resize_pos_embed(expected, larger, prefix="module.")
    files.assert_same(files.tool("load", path, shapes, tmp_path / "out"), files.bare(expected))


def test_resizes_positions_of_336_pixels_as_the_original(tmp_path):
    torch.manual_seed(3)
    state = {"visual.positional_embedding": torch.randn(1 + 16 * 16, 12)}
    path = save(tmp_path / "c.pt", state)
    shapes = save(tmp_path / "shapes", {"visual.positional_embedding": torch.zeros(1 + 24 * 24, 12)})
    grid = argparse.Namespace(visual=argparse.Namespace(grid_size=(24, 24)))
    clip_model.resize_pos_embed(state, grid)
    files.assert_same(files.tool("load", path, shapes, tmp_path / "out"), state)


def test_objects_beside_the_weights_are_not_looked_into(tmp_path):
    model = files.build()
    objects = {"args": argparse.Namespace(lr=0.1, name="x"), "best": numpy.float64(0.5), "dtype": torch.float16,
               "more": [numpy.arange(3), {1, 2}], "note": "text"}
    path = save(tmp_path / "c.pt", files.checkpoint(model, **objects))
    found = files.tool("read", path, tmp_path / "out")
    files.assert_same(found["state"], files.bare(model.state_dict()))
    assert found["extra"] == ["args: argparse.Namespace", "best: numpy._core.multiarray.scalar", "dtype: torch.float16",
                              "more: list", "note: str"]
    assert "expected int, found numpy" in files.refusal(save(path, files.checkpoint(model, epoch=numpy.int64(1))))
    assert "expected a Tensor, found argparse.Namespace" in files.refusal(
        save(path, {"state_dict": {"module.x": argparse.Namespace()}}))


class Marker:
    """Runs when it is unpickled, were anything run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class Evil:
    def __reduce__(self):
        import os
        return (os.system, ("touch evil",))


@pytest.mark.parametrize("evil, name", [(Marker, "open"), (Evil, "system")])
def test_nothing_is_executed(tmp_path, evil, name):
    trace = tmp_path / "trace"
    path = save(tmp_path / "c.pt", {"state_dict": {}, "args": evil(trace) if evil is Marker else evil()})
    assert name in files.refusal(path) and "refused" in files.refusal(path)
    assert not trace.exists() and not (tmp_path / "evil").exists()


def test_what_cannot_be_read_is_refused_in_words(tmp_path):
    model = files.build()
    whole = save(tmp_path / "whole.pt", files.checkpoint(model)).read_bytes()
    path = tmp_path / "c.pt"
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "truncated" in files.refusal(path), size
    path.write_bytes(whole.replace(b"PK\x01\x02", b"PK\x00\x00"))
    assert "damaged" in files.refusal(path)
    save(path, files.checkpoint(model), _use_new_zipfile_serialization=False)
    assert "before version 1.6" in files.refusal(path)
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("a/readme", "text")
    assert "without data.pkl" in files.refusal(path)
    save(path, {"state_dict": model.state_dict(), "epoch": "three"})
    assert "expected int, found str" in files.refusal(path)
    save(path, {"nothing": 1})
    assert "no tensor" in files.refusal(path)
    assert "no such file" in files.refusal(tmp_path / "missing.pt")


def test_the_original_loads_what_we_write(tmp_path):
    for vision in (files.VIT, files.RESNET):
        model = files.build(vision)
        optimizer = files.optimizer_of(model)
        path = save(tmp_path / "c.pt", files.checkpoint(model, optimizer))
        files.run(files.TOOL, "rewrite", path, tmp_path / "ours.pt")
        content = torch.load(tmp_path / "ours.pt", weights_only=True)
        assert list(content) == ["epoch", "step", "name", "optimizer", "state_dict"]
        assert type(content["state_dict"]) is collections.OrderedDict
        assert list(content["state_dict"]) == list(model.state_dict())
        other = files.build(vision, seed=2)
        other.load_state_dict(content["state_dict"])
        files.assert_same(other.state_dict(), model.state_dict())
        its_optimizer = files.optimizer_of(other, steps=0)
        its_optimizer.load_state_dict(content["optimizer"])
        for name, (step, mean, square) in files.moments(model, optimizer).items():
            found = files.moments(other, its_optimizer)[name]
            assert found[0] == step and torch.equal(found[1], mean) and torch.equal(found[2], square), name
        for ours, theirs in zip(content["optimizer"]["param_groups"], optimizer.state_dict()["param_groups"]):
            assert {k: v for k, v in ours.items() if k != "param_names"} == theirs


@pytest.mark.parametrize("vision, text", [
    ("RN50", "RBT3-chinese"), ("ViT-B-32", "RoBERTa-wwm-ext-base-chinese"),
    ("ViT-B-16", "RoBERTa-wwm-ext-base-chinese"), ("ViT-L-14", "RoBERTa-wwm-ext-base-chinese"),
    ("ViT-L-14-336", "RoBERTa-wwm-ext-base-chinese"), ("ViT-H-14", "RoBERTa-wwm-ext-large-chinese")])
def test_tells_which_model_a_file_is_of(tmp_path, vision, text):
    path = save(tmp_path / "c.pt", files.hollow(vision, text))
    assert files.run(files.TOOL, "towers", path).stdout == f"{vision} with {text}\n"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
