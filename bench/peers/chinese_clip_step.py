"""transformers' Chinese-CLIP as a peer of `strobe bench clip`, as fast as a user has it without rewriting it: attention by
scaled_dot_product_attention, torch.compile, the fused optimiser, channels-last convolutions.

transformers has no ResNet tower for Chinese-CLIP; RN50 takes cn_clip's beside transformers' text tower.
"""

import torch
import transformers
from transformers import ChineseCLIPConfig, ChineseCLIPModel, ChineseCLIPTextConfig, ChineseCLIPTextModel

from transformers.models.chinese_clip.modeling_chinese_clip import (
    ChineseCLIPPreTrainedModel, ChineseCLIPVisionAttention)

from clip_training import contrastive_loss, main

# Its attention goes through transformers' common interface; all that lacks is to say so, and that it is not causal.
ChineseCLIPPreTrainedModel._supports_sdpa = True
ChineseCLIPVisionAttention.is_causal = False

VISION_NAMES = (
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    ("bert.", "text_model."),
)


def renamed(weights):
    """From the original's names to transformers'."""
    result = {}
    for name, value in weights.items():
        if name == "text_projection":
            result["text_projection.weight"] = value.t()
        elif name == "visual.proj":
            result["visual_projection.weight"] = value.t()
        else:
            for old, new in VISION_NAMES:
                name = name.replace(old, new)
            if ".attn.in_proj_" in name:
                prefix, kind = name.split(".attn.in_proj_")
                for part, piece in zip("qkv", value.chunk(3)):
                    result[f"{prefix}.self_attn.{part}_proj.{kind}"] = piece
            else:
                result[name] = value
    return result


def text_config(text):
    return ChineseCLIPTextConfig(
        hidden_dropout_prob=text["hidden_dropout"], attention_probs_dropout_prob=text["attention_dropout"],
        layer_norm_eps=1e-12,
        **{name: text[name] for name in (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size", "initializer_range")})


class Vit(torch.nn.Module):
    def __init__(self, workload, attn_implementation):
        super().__init__()
        vision, text = workload["vision"], workload["text"]
        config = ChineseCLIPConfig(
            text_config=text_config(text).to_dict(), projection_dim=vision["embed_dim"],
            vision_config={
                "hidden_size": vision["width"], "intermediate_size": 4 * vision["width"],
                "num_hidden_layers": vision["layers"][0],
                "num_attention_heads": vision["width"] // vision["head_width"],
                "image_size": vision["image_resolution"], "patch_size": vision["patch_size"]})
        config._attn_implementation = attn_implementation
        self.clip = ChineseCLIPModel(config)
        missing, unexpected = self.clip.load_state_dict(renamed(workload["model"]), strict=False)
        missing = [name for name in missing if not name.endswith("position_ids")]
        if missing or unexpected:
            raise SystemExit(f"chinese_clip_step.py: missing {missing}, unexpected {unexpected}")

    @property
    def logit_scale(self):
        return self.clip.logit_scale

    def forward(self, images, ids, mask):
        return contrastive_loss(self.clip(input_ids=ids, pixel_values=images, attention_mask=mask).logits_per_image)


class ResNet(torch.nn.Module):
    def __init__(self, workload, attn_implementation):
        from cn_clip.clip.model import ModifiedResNet
        super().__init__()
        vision, weights = workload["vision"], workload["model"]
        self.visual = ModifiedResNet(
            layers=tuple(vision["layers"]), output_dim=vision["embed_dim"],
            heads=32 * vision["width"] // vision["head_width"], input_resolution=vision["image_resolution"],
            width=vision["width"])
        self.visual.load_state_dict(
            {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")})
        config = text_config(workload["text"])
        config._attn_implementation = attn_implementation
        self.text = ChineseCLIPTextModel(config, add_pooling_layer=False)
        self.text.load_state_dict(
            {name.removeprefix("bert."): value for name, value in weights.items() if name.startswith("bert.")},
            strict=False)
        self.text_projection = torch.nn.Parameter(weights["text_projection"].clone())
        self.logit_scale = torch.nn.Parameter(weights["logit_scale"].clone())

    def forward(self, images, ids, mask):
        image = self.visual(images)
        text = self.text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0] @ self.text_projection
        image = image / image.norm(dim=-1, keepdim=True)
        text = text / text.norm(dim=-1, keepdim=True)
        return contrastive_loss(self.logit_scale.exp() * image @ text.t())


def make_model(workload, attn_implementation="sdpa"):
    return (Vit if workload["vision"]["patch_size"] > 0 else ResNet)(workload, attn_implementation)


if __name__ == "__main__":
    main(make_model, {"transformers": transformers.__version__}, fused=True, compiled=True, channels_last=True)
