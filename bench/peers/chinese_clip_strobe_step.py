"""transformers' Chinese-CLIP with attn_implementation="strobe", the rest as in chinese_clip_step.py, as a peer of `strobe bench clip`."""

from functools import partial

import strobe
import transformers
from chinese_clip_step import make_model
from clip_training import main

if __name__ == "__main__":
    strobe.register()
    main(partial(make_model, attn_implementation="strobe"), {"transformers": transformers.__version__, "strobe": strobe.__version__},
         fused=True, compiled=True, channels_last=True)
