"""cn_clip with the attention matrix of its vision tower materialised, as torch did when Chinese-CLIP's table of speed and memory
was measured (torch 1.10), as a peer of `strobe bench clip`: what the published speed-ups compare with. Its text tower does
so anyway."""

from importlib.metadata import version

import torch
from clip_training import main
from cn_clip_step import make_model

attention = torch.nn.MultiheadAttention.forward


def materialised(self, *tensors, **options):
    """Asked for the probabilities, torch computes them."""
    return attention(self, *tensors, **{**options, "need_weights": True, "average_attn_weights": False})


torch.nn.MultiheadAttention.forward = materialised

if __name__ == "__main__":
    main(make_model, {"cn_clip": version("cn_clip")}, fused=False, compiled=False, channels_last=False)
