"""The Chinese-CLIP models against the packages that define them: cn_clip, and transformers' ChineseCLIPModel for the ViTs.

STROBE_CLIP_MODEL_TOOL names the program built from parity_tool.cpp. Weights are random, the oracle is cn_clip in float64.
Embeddings and losses in float32 agree to 1e-5. A gradient may err at most twice as much as cn_clip's own in float32,
plus 1e-6 of the norm of all gradients.
"""

import copy
import functools
import json
import os
import pathlib
import subprocess
import sys

import cn_clip.clip
import cn_clip.clip.model as original
import pytest
import torch

TOOL = os.environ["STROBE_CLIP_MODEL_TOOL"]
CONFIGS = pathlib.Path(cn_clip.clip.__file__).parent / "model_configs"
TYPES = ["dotscale", "flash_attn", "imp_flash_attn"]

# What is smaller than in the original's configurations.
SMALL_TEXT = dict(vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)
VISIONS = {
    "RN50": dict(),
    "ViT-B-32": dict(layers=2),
    "ViT-B-16": dict(layers=2, width=128, embed_dim=64),
    "ViT-L-14": dict(layers=2, width=128, embed_dim=64),
    "ViT-L-14-336": dict(layers=2, width=128, embed_dim=64),
    "ViT-H-14": dict(layers=2, width=160, embed_dim=64),
}
TEXTS = {
    "RBT3-chinese": dict(vocab_size=300),
    "RoBERTa-wwm-ext-base-chinese": SMALL_TEXT,
    "RoBERTa-wwm-ext-large-chinese": SMALL_TEXT,
}
PAIRS = [("RN50", "RBT3-chinese"), ("ViT-B-32", "RBT3-chinese"), ("ViT-B-16", "RoBERTa-wwm-ext-base-chinese"),
         ("ViT-L-14", "RoBERTa-wwm-ext-base-chinese"), ("ViT-L-14-336", "RoBERTa-wwm-ext-base-chinese"),
         ("ViT-H-14", "RoBERTa-wwm-ext-large-chinese")]
# Parameters of the full size: all, the image tower's, BERT's.
COUNTS = {
    "RN50": (76_989_537, 38_316_896, 37_886_208),
    "ViT-B-16": (188_262_913, 86_192_640, 101_677_056),
    "ViT-L-14": (406_233_089, 303_966_208, 101_677_056),
    "ViT-L-14-336": (406_560_769, 304_293_888, 101_677_056),
    "ViT-H-14": (957_598_209, 632_076_800, 324_472_832),
}


def original_config(vision, text, vision_changes, text_changes):
    config = json.loads((CONFIGS / f"{vision}.json").read_text()) | json.loads((CONFIGS / f"{text}.json").read_text())
    config["vision_layers"] = eval(config["vision_layers"]) if isinstance(config["vision_layers"], str) else \
        config["vision_layers"]
    config.update({{"layers": "vision_layers", "width": "vision_width", "embed_dim": "embed_dim"}[key]: value
                   for key, value in vision_changes.items()})
    config.update({key if key == "vocab_size" else f"text_{key}": value for key, value in text_changes.items()})
    config["text_hidden_dropout_prob"] = config["text_attention_probs_dropout_prob"] = 0.0
    return config


def original_model(*arguments):
    return original.CLIP(**original_config(*arguments))


def randomize(model, generator):
    """Off the symmetric points where models begin, so that every parameter matters, and with words that differ much: the
    loss's gradient is made of the features' differences, and where those are small, rounding is all that is compared."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
            elif name.endswith("word_embeddings.weight"):
                tensor.mul_(5)


def random_images(batch, side, generator):
    coarse = torch.randn(batch, 3, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear") +
            0.5 * torch.randn(batch, 3, side, side, generator=generator))


def random_texts(batch, length, vocabulary, generator):
    ids = torch.randint(104 if vocabulary > 104 else 1, vocabulary, (batch, length), generator=generator)
    lengths = torch.randint(2, length + 1, (batch,), generator=generator)
    lengths[0], lengths[1] = 2, length
    ids[:, 0] = 101
    ids[torch.arange(batch), lengths - 1] = 102
    return ids * (torch.arange(length) < lengths[:, None])


def to_double(model):
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if isinstance(module, original.LayerNorm):
            module.forward = functools.partial(torch.nn.LayerNorm.forward, module)  # the original's casts to float32
    return model


def loss_of(image_features, text_features, scale):
    logits = scale * image_features @ text_features.T
    labels = torch.arange(len(logits))
    return (torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)) / 2


def run_original(model, images, ids, train, gradients, mask_ratio=0.0, seed=0):
    model.train(train)
    dtype = model.text_projection.dtype
    result = {}
    if gradients:
        model.zero_grad()
        torch.manual_seed(seed)
        loss = loss_of(*model(images.to(dtype), ids, mask_ratio))
        loss.backward()
        result = {"loss": loss.detach(), "gradients": {name: p.grad.clone() for name, p in model.named_parameters()},
                  "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()}}
    with torch.no_grad():
        torch.manual_seed(seed)
        result["image_features"] = model.encode_image(images.to(dtype), mask_ratio)
        result["text_features"] = model.encode_text(ids)
    return result


def our_config(name, changes):
    changes = dict(changes)
    if isinstance(changes.get("layers"), int):
        changes["layers"] = [changes["layers"]]
    return {"name": name, **changes}


def ask(folder, request):
    torch.save(request, folder / "request.pt")
    subprocess.run([TOOL, folder / "request.pt", folder / "answer.pt"], check=True)
    answer = torch.load(folder / "answer.pt", weights_only=True)
    (folder / "request.pt").unlink()
    (folder / "answer.pt").unlink()
    return answer


def run_ours(folder, configs, model, images, ids, runs):
    plain = dict(attn_type="dotscale", dtype="float32", train=True, mask_ratio=0.0, seed=0, grad_checkpointing=False,
                 gradients=True)
    (vision, vision_changes), (text, text_changes) = configs
    return ask(folder, {
        "what": "run", "vision": our_config(vision, vision_changes), "text": our_config(text, text_changes),
        "state": dict(model.state_dict()), "images": images, "ids": ids, "runs": [plain | run for run in runs]})["results"]


def relative(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def norm_of_all(gradients):
    return torch.stack([gradient.double().norm() for gradient in gradients.values()]).norm().item()


def assert_features(ours, exact):
    for tower in ("image_features", "text_features"):
        assert relative(ours[tower], exact[tower]) <= 1e-5, tower


def assert_gradients(ours, single, exact):
    assert list(ours["gradients"]) == list(exact["gradients"])
    everything = norm_of_all(exact["gradients"])
    for name, reference in exact["gradients"].items():
        error = (ours["gradients"][name].double() - reference).norm().item()
        allowed = 2 * (single["gradients"][name].double() - reference).norm().item() + 1e-6 * everything
        assert error <= allowed, f"{name}: error {error:.3g}, the original's allows {allowed:.3g}"


def prepared(vision, text, vision_changes, text_changes, batch, length):
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    model = original_model(vision, text, vision_changes, text_changes)
    randomize(model, generator)
    config = original_config(vision, text, vision_changes, text_changes)
    images = random_images(batch, config["image_resolution"], generator)
    return model, images, random_texts(batch, length, config["vocab_size"], generator)


@pytest.mark.parametrize("vision, text", PAIRS)
def test_embeddings_loss_and_gradients_equal_the_originals(vision, text, tmp_path):
    configs = (vision, VISIONS[vision]), (text, TEXTS[text])
    batch = 4 if vision == "RN50" else 8
    model, images, ids = prepared(vision, text, VISIONS[vision], TEXTS[text], batch, 12)
    exact = run_original(to_double(model), images, ids, train=True, gradients=True)
    single = run_original(copy.deepcopy(model), images, ids, train=True, gradients=True)
    evaluated = run_original(to_double(model), images, ids, train=False, gradients=False)
    runs = [{"attn_type": attn_type} for attn_type in TYPES]
    runs += [{"attn_type": attn_type, "train": False, "gradients": False} for attn_type in TYPES]
    ours = run_ours(tmp_path, configs, model, images, ids, runs)
    for trained in ours[:3]:
        assert_features(trained, exact)
        assert abs(trained["loss"].item() - exact["loss"].item()) <= 1e-5 * exact["loss"].item()
        assert_gradients(trained, single, exact)
        assert list(trained["buffers"]) == list(exact["buffers"])
        for name, buffer in exact["buffers"].items():
            assert trained["buffers"][name].dtype == single["buffers"][name].dtype
            torch.testing.assert_close(trained["buffers"][name].double(), buffer.double(), rtol=1e-5, atol=1e-6)
    for found in ours[3:]:
        assert_features(found, evaluated)


def test_float64_equals_the_original_in_float64(tmp_path):
    configs = ("ViT-B-16", VISIONS["ViT-B-16"]), ("RBT3-chinese", SMALL_TEXT)
    model, images, ids = prepared(configs[0][0], configs[1][0], configs[0][1], configs[1][1], 3, 12)
    exact = run_original(to_double(model), images, ids, train=True, gradients=True)
    ours, = run_ours(tmp_path, configs, model, images, ids, [{"dtype": "float64"}])
    assert abs(ours["loss"].item() - exact["loss"].item()) <= 1e-12
    everything = norm_of_all(exact["gradients"])
    for name, reference in exact["gradients"].items():
        assert (ours["gradients"][name] - reference).norm().item() <= 1e-11 * everything, name


def test_bfloat16_autocast_errs_no_more_than_the_originals(tmp_path):
    configs = ("ViT-B-16", VISIONS["ViT-B-16"]), ("RBT3-chinese", SMALL_TEXT)
    model, images, ids = prepared(configs[0][0], configs[1][0], configs[0][1], configs[1][1], 8, 12)
    exact = run_original(to_double(model), images, ids, train=True, gradients=True)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = run_original(copy.deepcopy(model), images, ids, train=True, gradients=True)
    for ours in run_ours(tmp_path, configs, model, images, ids,
                         [{"attn_type": attn_type, "dtype": "bfloat16"} for attn_type in TYPES]):
        for tower in ("image_features", "text_features"):
            assert relative(ours[tower], exact[tower]) <= 1.5 * relative(theirs[tower], exact[tower]), tower
        errors = [norm_of_all({name: found["gradients"][name].double() - gradient
                               for name, gradient in exact["gradients"].items()}) for found in (ours, theirs)]
        assert errors[0] <= 1.5 * errors[1]


def test_masked_training_equals_the_originals_from_the_same_seed(tmp_path):
    configs = ("ViT-B-16", VISIONS["ViT-B-16"]), ("RBT3-chinese", SMALL_TEXT)
    model, images, ids = prepared(configs[0][0], configs[1][0], configs[0][1], configs[1][1], 3, 12)
    masked = dict(mask_ratio=0.4, seed=5)
    exact = run_original(to_double(model), images, ids, train=True, gradients=True, **masked)
    single = run_original(copy.deepcopy(model), images, ids, train=True, gradients=True, **masked)
    plain = run_original(to_double(model), images, ids, train=False, gradients=False)
    ours = run_ours(tmp_path, configs, model, images, ids,
                    [masked, masked | {"grad_checkpointing": True},
                     masked | {"train": False, "gradients": False}])
    for trained in ours[:2]:
        assert_features(trained, exact)
        assert_gradients(trained, single, exact)
    assert_features(ours[2], plain)  # evaluation sees all patches
    assert relative(exact["image_features"], plain["image_features"]) > 1e-2


def test_full_size_forward_equals_the_originals(tmp_path):
    configs = ("ViT-B-16", {}), ("RBT3-chinese", {})
    model, images, ids = prepared("ViT-B-16", "RBT3-chinese", {}, {}, 2, 52)
    theirs = run_original(model, images, ids, train=False, gradients=False)
    ours, = run_ours(tmp_path, configs, model, images, ids,
                     [{"attn_type": "imp_flash_attn", "train": False, "gradients": False}])
    assert_features(ours, theirs)


@pytest.mark.parametrize("vision, text", PAIRS)
def test_names_and_counts_at_full_width(vision, text, tmp_path):
    """Two layers of each tower at the original's width; the others only repeat the second."""
    depth = {} if vision == "RN50" else {"layers": 2}
    with torch.device("meta"):
        theirs = original_model(vision, text, depth, {"num_hidden_layers": 2})
        full = original_model(vision, text, {}, {})
    ours = ask(tmp_path, {"what": "describe", "vision": our_config(vision, depth),
                          "text": our_config(text, {"num_hidden_layers": 2})})
    for kind, expected in (("parameters", theirs.named_parameters()), ("buffers", theirs.named_buffers())):
        assert ours[kind] == [[name, list(tensor.shape)] for name, tensor in expected]

    sizes = {name: torch.Size(shape).numel() for name, shape in ours["parameters"]}

    def tower(prefix, block, layers):
        repeated = sum(size for name, size in sizes.items() if name.startswith(f"{prefix}{block}1."))
        return sum(size for name, size in sizes.items() if name.startswith(prefix)) + (layers - 2) * repeated

    config = original_config(vision, text, {}, {})
    visual = tower("visual.", "transformer.resblocks.", 2 if vision == "RN50" else config["vision_layers"])
    bert = tower("bert.", "encoder.layer.", config["text_num_hidden_layers"])
    total = visual + bert + sizes["text_projection"] + sizes["logit_scale"]
    assert total == sum(parameter.numel() for parameter in full.parameters())
    if vision in COUNTS:
        assert (total, visual, bert) == COUNTS[vision]


def transformers_model(model, config):
    """ChineseCLIPModel with the weights of the original's model."""
    import transformers
    heads = config["vision_width"] // config.get("vision_head_width", 64)
    hf = transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(
        text_config=dict(
            vocab_size=config["vocab_size"], hidden_size=config["text_hidden_size"],
            num_hidden_layers=config["text_num_hidden_layers"], num_attention_heads=config["text_num_attention_heads"],
            intermediate_size=config["text_intermediate_size"], hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0),
        vision_config=dict(
            hidden_size=config["vision_width"], intermediate_size=4 * config["vision_width"],
            num_hidden_layers=config["vision_layers"], num_attention_heads=heads,
            image_size=config["image_resolution"], patch_size=config["vision_patch_size"],
            projection_dim=config["embed_dim"]),
        projection_dim=config["embed_dim"]))
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "text_projection":
            state["text_projection.weight"] = tensor.T
        elif name == "visual.proj":
            state["visual_projection.weight"] = tensor.T
        elif ".attn.in_proj_" in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("attn.in_proj_", f"self_attn.{part}_proj.")] = rows
        else:
            state[name] = tensor
    renamed = [("bert.", "text_model."), ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
               ("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"),
               ("visual.conv1", "vision_model.embeddings.patch_embedding"),
               ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
               ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
               (".ln_1.", ".layer_norm1."), (".ln_2.", ".layer_norm2."), (".c_fc.", ".fc1."), (".c_proj.", ".fc2."),
               (".attn.out_proj.", ".self_attn.out_proj.")]
    for before, after in renamed:
        state = {name.replace(before, after): tensor for name, tensor in state.items()}
    missing, unexpected = hf.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name or "token_type_ids" in name for name in missing)
    return hf.eval()


@pytest.mark.parametrize("vision", ["ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14"])
def test_embeddings_equal_those_of_transformers(vision, tmp_path):
    text = "RoBERTa-wwm-ext-base-chinese"
    configs = (vision, VISIONS[vision]), (text, SMALL_TEXT)
    model, images, ids = prepared(vision, text, VISIONS[vision], SMALL_TEXT, 3, 12)
    hf = transformers_model(model, original_config(vision, text, VISIONS[vision], SMALL_TEXT))
    with torch.no_grad():
        theirs = hf(input_ids=ids, pixel_values=images, attention_mask=ids.ne(0).long())
    for ours in run_ours(tmp_path, configs, model, images, ids,
                         [{"attn_type": attn_type, "train": False, "gradients": False} for attn_type in TYPES]):
        for found, expected in ((ours["image_features"], theirs.image_embeds),
                                (ours["text_features"], theirs.text_embeds)):
            assert relative(torch.nn.functional.normalize(found), expected) <= 1e-5


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
