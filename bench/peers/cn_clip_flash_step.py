"""cn_clip as it is with --use-flash-attention, whose flash_attn is strobe's drop-in, as a peer of `strobe bench clip`."""

from functools import partial
from importlib.metadata import version

import strobe
from clip_training import main
from cn_clip_step import make_model

if __name__ == "__main__":
    main(partial(make_model, use_flash_attention=True), {"cn_clip": version("cn_clip"), "strobe": strobe.__version__},
         fused=False, compiled=False, channels_last=False)
