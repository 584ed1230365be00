"""strobe clip convert: Hugging Face's ChineseCLIPModel, safetensors, and what towers begin with."""

import json
import os
import sys

import pytest
import torch
from cn_clip.clip import model as clip_model

import files

os.environ["HF_HUB_OFFLINE"] = "1"
import safetensors.torch  # noqa: E402
import transformers  # noqa: E402


def hugging_face_model():
    text = dict(vocab_size=60, hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96,
                max_position_embeddings=20)
    vision = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=1, image_size=32,
                  patch_size=16, projection_dim=24)
    torch.manual_seed(5)
    model = transformers.ChineseCLIPModel(
        transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def inputs():
    torch.manual_seed(6)
    ids = torch.randint(1, 60, (3, 9))
    ids[1, 5:] = 0
    return torch.randn(3, 3, 32, 32), ids


def features(model):
    """Normalised, of either program's model."""
    images, ids = inputs()
    with torch.no_grad():
        if isinstance(model, transformers.ChineseCLIPModel):
            out = model(pixel_values=images, input_ids=ids, attention_mask=ids.ne(0).long())
            return out.image_embeds, out.text_embeds
        return model.module.eval()(images, ids)[:2]


def assert_same_features(a, b):
    for x, y in zip(features(a), features(b)):
        assert torch.allclose(x, y, rtol=1e-4, atol=1e-5), (x - y).abs().max()


def load_original(path):
    model = files.build(seed=9)
    model.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    return model


def test_from_hugging_face_to_the_original(tmp_path):
    model = hugging_face_model()
    model.save_pretrained(tmp_path / "hf")
    files.convert(tmp_path / "hf", tmp_path / "c.pt")
    assert_same_features(load_original(tmp_path / "c.pt"), model)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")  # as older repositories have it
    files.convert(tmp_path / "pytorch_model.bin", tmp_path / "d.pt")
    files.assert_same(torch.load(tmp_path / "d.pt", weights_only=True)["state_dict"],
                      torch.load(tmp_path / "c.pt", weights_only=True)["state_dict"])


def test_from_the_original_to_hugging_face_and_back(tmp_path):
    model = files.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    torch.save(files.checkpoint(model, files.optimizer_of(model, steps=0)), tmp_path / "c.pt")
    assert "a ViT of width 64" in files.convert(tmp_path / "c.pt", tmp_path / "hf")
    theirs, loading = transformers.ChineseCLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    assert_same_features(theirs.eval(), model)
    files.convert(tmp_path / "hf", tmp_path / "back.pt")
    files.assert_same(torch.load(tmp_path / "back.pt", weights_only=True)["state_dict"], model.state_dict())
    files.convert(tmp_path / "c.pt", tmp_path / "w.safetensors")
    weights = safetensors.torch.load_file(tmp_path / "w.safetensors")
    files.assert_same(weights, safetensors.torch.load_file(tmp_path / "hf" / "model.safetensors"))
    weights["text_model.embeddings.word_embeddings.weight"][0] = 0  # padding's, which transformers sets to 0
    files.assert_same(weights, theirs.state_dict())


def test_the_configuration_of_a_real_size(tmp_path):
    content = files.hollow("ViT-B-16", "RoBERTa-wwm-ext-base-chinese")
    content["state_dict"] = {k: v.half() for k, v in content["state_dict"].items()}
    torch.save(content, tmp_path / "c.pt")
    assert files.convert(tmp_path / "c.pt", tmp_path / "hf").startswith("ViT-B-16 with RoBERTa-wwm-ext-base-chinese")
    with torch.device("meta"):
        expected = transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig.from_pretrained(tmp_path / "hf"))
    assert expected.config.text_config.vocab_size == 21128 and expected.config.vision_config.num_attention_heads == 12
    with safetensors.safe_open(tmp_path / "hf" / "model.safetensors", "pt") as weights:
        assert weights.metadata() == {"format": "pt"}
        assert {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()} == {
            name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}
    processor = transformers.ChineseCLIPImageProcessor.from_pretrained(tmp_path / "hf")
    assert processor.size == {"height": 224, "width": 224} and not processor.do_center_crop


def test_a_resnet_is_refused_and_nothing_is_left(tmp_path):
    torch.save(files.checkpoint(files.build(files.RESNET)), tmp_path / "c.pt")
    done = files.run(files.STROBE, "clip", "convert", tmp_path / "c.pt", tmp_path / "hf", check=False)
    assert done.returncode == 1 and "no ResNet" in done.stderr
    assert not (tmp_path / "hf").exists()


def test_safetensors_are_those_of_the_package(tmp_path):
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool)
    tensors = {f"t.{i}": torch.arange(i + 1).to(dtype).reshape(1, -1) for i, dtype in enumerate(dtypes)}
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "名": torch.ones(2, 1, 3)}
    safetensors.torch.save_file(tensors, tmp_path / "theirs.safetensors", {"a": "b"})
    files.run(files.TOOL, "safetensors", tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")
    files.assert_same(safetensors.torch.load_file(tmp_path / "ours.safetensors"), tensors)


def test_parts_of_a_large_model(tmp_path):
    model = hugging_face_model()
    model.save_pretrained(tmp_path / "hf", max_shard_size="200KB")
    assert not (tmp_path / "hf" / "model.safetensors").exists()
    files.convert(tmp_path / "hf", tmp_path / "c.pt")
    assert_same_features(load_original(tmp_path / "c.pt"), model)
    index = tmp_path / "hf" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../evil.safetensors"}}))
    assert "expected names of files" in files.run(files.STROBE, "clip", "convert", tmp_path / "hf", tmp_path / "d.pt",
                                                  check=False).stderr


def test_options_and_forms(tmp_path):
    model = files.build()
    torch.save(files.checkpoint(model, files.optimizer_of(model)), tmp_path / "c.pt")
    assert "with optimizer" in files.convert(tmp_path / "c.pt", tmp_path / "all.pt")
    assert "optimizer" in torch.load(tmp_path / "all.pt", weights_only=True)
    files.convert(tmp_path / "c.pt", tmp_path / "small.pt", "--drop-optimizer")
    assert "optimizer" not in torch.load(tmp_path / "small.pt", weights_only=True)
    files.convert(tmp_path / "c.pt", tmp_path / "c.pt", "--drop-optimizer")  # in its own place
    files.assert_same(torch.load(tmp_path / "c.pt", weights_only=True)["state_dict"], model.state_dict())
    done = files.run(files.STROBE, "clip", "convert", tmp_path / "c.pt", tmp_path / "x.onnx", check=False)
    assert done.returncode == 2 and "--to" in done.stderr


class OpenAi(torch.nn.Module):
    """What OpenAI's archives have: the towers' parameters, and numbers as buffers."""

    def __init__(self, visual):
        super().__init__()
        self.visual = visual
        self.token_embedding = torch.nn.Embedding(7, 8)
        self.positional_embedding = torch.nn.Parameter(torch.randn(5, 8))
        self.logit_scale = torch.nn.Parameter(torch.tensor(4.6))
        self.register_buffer("input_resolution", torch.tensor(32))

    def forward(self, x):
        return self.visual(x) * self.logit_scale


@pytest.mark.parametrize("vision", [files.VIT, files.RESNET], ids=["vit", "resnet"])
def test_openai_weights(tmp_path, vision):
    model = files.build(vision).module.visual
    model = OpenAi(model).eval().half().float()
    archive = torch.jit.trace(model, torch.randn(1, 3, vision["image_resolution"], vision["image_resolution"]))
    archive.save(tmp_path / "openai.pt")
    files.convert(tmp_path / "openai.pt", tmp_path / "clip.pt", "--to", "clip-weights")
    expected = {k: v for k, v in archive.state_dict().items() if k.startswith("visual") or k == "logit_scale"}
    files.assert_same(torch.load(tmp_path / "clip.pt", weights_only=True), expected)
    torch.save(archive.state_dict(), tmp_path / "plain.pt")  # what the original's script makes
    files.convert(tmp_path / "plain.pt", tmp_path / "same.pt", "--to", "clip-weights")
    files.assert_same(torch.load(tmp_path / "same.pt", weights_only=True), expected)
    ours = clip_model.restore_model(files.build(vision).module, torch.load(tmp_path / "clip.pt"), None, False)
    files.assert_same({f"visual.{k}": v.float() for k, v in ours.visual.state_dict().items() if v.is_floating_point()},
                      {k: v.half().float() if ours.state_dict()[k].dtype == torch.float16 else v
                       for k, v in expected.items() if k != "logit_scale" and v.is_floating_point()})


def test_bert_weights(tmp_path):
    config = transformers.BertConfig(vocab_size=60, hidden_size=64, num_hidden_layers=2, num_attention_heads=1,
                                     intermediate_size=96, max_position_embeddings=20)
    model = transformers.BertForMaskedLM(config)
    expected = {k: v for k, v in model.state_dict().items() if k.startswith("bert.")}
    model.save_pretrained(tmp_path / "heads")
    model.bert.save_pretrained(tmp_path / "bare")
    torch.save({k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
                for k, v in expected.items()}, tmp_path / "tensorflow.bin")
    for file in ("heads/model.safetensors", "bare/model.safetensors", "tensorflow.bin"):
        files.convert(tmp_path / file, tmp_path / "bert.pt", "--to", "bert-weights")
        found = torch.load(tmp_path / "bert.pt", weights_only=True)
        files.assert_same(found, expected)
    ours = clip_model.restore_model(files.build().module, None, found, False).float()
    for name, tensor in expected.items():
        assert torch.equal(ours.state_dict()[name], tensor.half().float()), name


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
