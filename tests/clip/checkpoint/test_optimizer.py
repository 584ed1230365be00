"""The optimizer's state goes from and to the original by name, whatever attention wrote the file."""

import copy
import sys

import pytest
import torch
from cn_clip.clip import model as clip_model

import files


def plain_moments(found):
    """moments() of a normalised state."""
    groups = found["param_groups"]
    names = {number: name for group in groups for number, name in zip(group["params"], group["param_names"])}
    assert sorted(names) == list(range(len(names)))
    for decay, group in enumerate(groups):
        assert all(files.has_decay(name) == bool(decay) for name in group["param_names"])
        assert group["weight_decay"] == (0.001 if decay else 0.0)
    return {names[i]: (float(s["step"]), s["exp_avg"], s["exp_avg_sq"]) for i, s in found["state"].items()}


def expected_moments(model, optimizer):
    """Under the plain form's names, by what the flash form's say."""
    expected = {}
    for name, (step, *both) in files.moments(model, optimizer).items():
        if "attention.self.Wqkv" in name:
            for i, part in enumerate(("query", "key", "value")):
                expected[name.replace("Wqkv", part)] = (step, *(m.chunk(3)[i] for m in both))
            continue
        for flash, plain in (("attn.Wqkv.", "attn.in_proj_"), ("self.out_proj", "output.dense")):
            name = name.replace(flash, plain)
        expected[name] = (step, *both)
    return expected


def assert_same_moments(found, expected):
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, (step, mean, square) in expected.items():
        assert found[name][0] == step, name
        assert torch.equal(found[name][1], mean) and torch.equal(found[name][2], square), name


def write(path, model, optimizer, **changes):
    state = model.state_dict()
    if any("Wqkv" in name for name in state):
        state = clip_model.convert_state_dict(state)
    torch.save(files.checkpoint(model, state_dict=state, optimizer=optimizer.state_dict(), **changes), path)
    return path


@pytest.mark.parametrize("vision", [files.VIT, files.RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("flash", [False, True], ids=["plain", "flash"])
@pytest.mark.parametrize("frozen", [False, True], ids=["whole", "frozen"])
def test_reads_by_name(tmp_path, vision, flash, frozen):
    model = files.build(vision, flash)
    for parameter in model.module.visual.parameters():
        parameter.requires_grad = not frozen
    optimizer = files.optimizer_of(model)
    path = write(tmp_path / "c.pt", model, optimizer)
    found = files.tool("read", path, tmp_path / "out")["optimizer"]
    expected = expected_moments(model, optimizer)
    assert any("visual" in name for name in expected) != frozen
    assert_same_moments(plain_moments(found), expected)
    assert found["param_groups"][0]["lr"] == 5e-5 and found["param_groups"][1]["betas"] == (0.9, 0.98)


def test_a_flash_run_resumes_without_flash_in_the_original(tmp_path):
    flash = files.build(flash=True)
    optimizer = files.optimizer_of(flash, steps=3)
    path = write(tmp_path / "flash.pt", flash, optimizer)
    plain = files.build(seed=2)
    ours = files.optimizer_of(plain, steps=0)
    with pytest.raises(ValueError):  # the original's own way ends here
        ours.load_state_dict(torch.load(path, weights_only=True)["optimizer"])
    files.run(files.TOOL, "rewrite", path, tmp_path / "plain.pt")
    content = torch.load(tmp_path / "plain.pt", weights_only=True)
    plain.load_state_dict(content["state_dict"])
    ours.load_state_dict(content["optimizer"])
    assert_same_moments(files.moments(plain, ours), expected_moments(flash, optimizer))


def test_step_counts_of_old_torch(tmp_path):
    model = files.build()
    optimizer = files.optimizer_of(model)
    saved = copy.deepcopy(optimizer.state_dict())
    for slot in saved["state"].values():
        slot["step"] = int(slot["step"])
    for group in saved["param_groups"]:
        for key in ("foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
            group.pop(key, None)
    torch.save(files.checkpoint(model, optimizer=saved), tmp_path / "c.pt")
    found = files.tool("read", tmp_path / "c.pt", tmp_path / "out")["optimizer"]
    assert_same_moments(plain_moments(found), files.moments(model, optimizer))
    assert all(slot["step"].dtype == torch.float32 and slot["step"].dim() == 0 for slot in found["state"].values())


def test_a_pooler_in_the_file_is_passed_over(tmp_path):
    model = files.build()
    model.module.bert.pooler = torch.nn.Module()
    model.module.bert.pooler.dense = torch.nn.Linear(64, 64)
    optimizer = files.optimizer_of(model)
    path = write(tmp_path / "c.pt", model, optimizer)
    found = files.tool("read", path, tmp_path / "out")
    expected = {k: v for k, v in files.moments(model, optimizer).items() if "pooler" not in k}
    assert_same_moments(plain_moments(found["optimizer"]), expected)
    assert not any("pooler" in name for name in found["state"])


def test_parameters_without_a_step_have_no_state(tmp_path):
    model = files.build()
    optimizer = files.optimizer_of(model, steps=0)
    found = files.tool("read", write(tmp_path / "c.pt", model, optimizer), tmp_path / "out")["optimizer"]
    assert found["state"] == {} and sum(len(g["params"]) for g in found["param_groups"]) == len(list(model.parameters()))


def test_another_models_optimizer_is_refused_and_only_where_it_is_wanted(tmp_path):
    model, other = files.build(), files.build(vision_layers=3)
    path = write(tmp_path / "c.pt", model, files.optimizer_of(other))
    assert "are not those of these weights" in files.refusal(path, "read")
    files.assert_same(files.tool("weights", path, tmp_path / "out")["state"], files.bare(model.state_dict()))


def test_matched_to_an_optimizer_that_knows_fewer(tmp_path):
    model = files.build(flash=True)
    optimizer = files.optimizer_of(model)
    path = write(tmp_path / "c.pt", model, optimizer)
    names = ["logit_scale", "bert.encoder.layer.1.attention.self.key.weight", "visual.proj"]
    own = {"state": {}, "param_groups": [{"lr": 1.0, "params": [0, 1, 2], "param_names": names}]}
    torch.save(own, tmp_path / "own")
    found = files.tool("match", path, tmp_path / "own", tmp_path / "out")
    expected = expected_moments(model, optimizer)
    for number, name in enumerate(names):
        assert torch.equal(found["state"][number]["exp_avg"], expected[name][1]), name
    assert found["param_groups"][0]["lr"] == 5e-5


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
