"""cn_clip as it is, as a peer of `strobe bench clip`: its model, loss, and optimiser as its training program makes them."""

from importlib.metadata import version

from cn_clip.clip.model import CLIP, convert_state_dict

from clip_training import contrastive_loss, main


class Model(CLIP):
    def forward(self, images, ids, mask):
        image_features, text_features, logit_scale = super().forward(images, ids)
        return contrastive_loss(logit_scale.mean() * image_features @ text_features.t())


def make_model(workload, use_flash_attention=False):
    vision, text = workload["vision"], workload["text"]
    is_vit = vision["patch_size"] > 0
    model = Model(
        embed_dim=vision["embed_dim"], image_resolution=vision["image_resolution"],
        vision_layers=vision["layers"][0] if is_vit else tuple(vision["layers"]), vision_width=vision["width"],
        vision_patch_size=vision["patch_size"] or None, vision_head_width=vision["head_width"],
        text_attention_probs_dropout_prob=text["attention_dropout"], text_hidden_dropout_prob=text["hidden_dropout"],
        text_hidden_act="gelu",
        **{f"text_{name}": text[name] for name in (
            "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings", "num_attention_heads",
            "num_hidden_layers", "type_vocab_size")},
        vocab_size=text["vocab_size"], use_flash_attention=use_flash_attention)
    weights = workload["model"]
    model.load_state_dict(convert_state_dict(dict(weights)) if use_flash_attention else weights)
    return model.float()


if __name__ == "__main__":
    main(make_model, {"cn_clip": version("cn_clip")}, fused=False, compiled=False, channels_last=False)
