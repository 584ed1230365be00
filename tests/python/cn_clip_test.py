"""cn_clip 1.6.0 as PyPI has it, its --use-flash-attention modules over the drop-in: one training step beside the step without."""

import copy

import pytest
import torch
from cn_clip.clip.model import CLIP, LayerNorm, convert_state_dict
from conftest import DEVICE
from flash_attn.flash_attention import FlashMHA
from oracle import check

SIZES = dict(embed_dim=32, image_resolution=64, vision_layers=2, vision_width=64, vision_patch_size=16, vision_head_width=32,
             vocab_size=97, text_attention_probs_dropout_prob=0.0, text_hidden_act="gelu", text_hidden_dropout_prob=0.0,
             text_hidden_size=64, text_initializer_range=0.02, text_intermediate_size=96, text_max_position_embeddings=20,
             text_num_attention_heads=2, text_num_hidden_layers=2, text_type_vocab_size=2)
AMP = torch.float16 if DEVICE == "cuda" else torch.bfloat16


def model_with(state_dict, use_flash_attention, dtype=torch.float32):
    model = CLIP(**SIZES, use_flash_attention=use_flash_attention)
    model.load_state_dict(state_dict)
    if dtype == torch.float64:  # its own computes in fp32 whatever the precision is
        for module in model.modules():
            if isinstance(module, LayerNorm):
                module.__class__ = torch.nn.LayerNorm
    return model.to(dtype)


def step(model, dtype=torch.float32, autocast=False):
    """The contrastive loss of a batch with padded texts, and every gradient under the names of the model without the flag."""
    generator = torch.Generator(DEVICE).manual_seed(1)
    images = torch.randn(4, 3, 64, 64, generator=generator).to(dtype)
    ids = torch.randint(1, 97, (4, 20), generator=generator)
    ids[torch.arange(20) >= torch.tensor([5, 20, 11, 2])[:, None]] = 0
    with torch.autocast(DEVICE, dtype=AMP, enabled=autocast):
        image, text, scale = model(images, ids)
        logits = scale * image @ text.t()
    targets = torch.arange(4)
    cross_entropy = torch.nn.functional.cross_entropy
    loss = (cross_entropy(logits.to(dtype), targets) + cross_entropy(logits.to(dtype).t(), targets)) / 2
    loss.backward()
    # Its way back to the names without the flag expects those of a data-parallel model.
    gradients = {f"module.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    if any("Wqkv" in name for name in gradients):
        gradients = convert_state_dict(gradients)
    return loss.detach(), torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "amp"])
def test_training_step(autocast):
    if DEVICE == "cuda" and not autocast:
        pytest.skip("the kernels of a GPU take fp16 and bf16, as flash-attn's")
    torch.manual_seed(0)
    plain = CLIP(**SIZES).state_dict()
    flash = convert_state_dict(copy.deepcopy(plain))
    exact = step(model_with(plain, False, torch.float64), torch.float64)
    beside = step(model_with(plain, False), autocast=autocast)
    model = model_with(flash, True)
    assert sum(isinstance(module, FlashMHA) for module in model.modules()) == 4
    found = step(model, autocast=autocast)
    # The flag changes what is computed in which precision beyond attention: cn_clip's own BERT attention keeps its
    # probabilities and its output layer apart. Both are held to the same error.
    for mine, theirs, truth in zip(found, beside, exact):
        check(mine, theirs, truth, factor=3, scores=8.0)


def test_checkpoints_convert_both_ways():
    torch.manual_seed(0)
    plain = {f"module.{name}": value for name, value in CLIP(**SIZES).state_dict().items()}
    there = convert_state_dict(dict(plain))
    assert "module.visual.transformer.resblocks.0.attn.Wqkv.weight" in there
    back = convert_state_dict(dict(there))
    assert back.keys() == plain.keys() and all(torch.equal(back[name], plain[name]) for name in plain)
