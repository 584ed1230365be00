"""Exact FlashAttention for training, on NVIDIA GPUs from Turing on and on CPUs.

strobe.attention is the operator; the functions of flash-attn 2 stand beside it under their own names; strobe.flash_attn_1 has
flash-attn 1's; strobe.register() adds attn_implementation="strobe" to transformers.
"""

from ._library import load

load()

from . import flash_attn_2  # noqa: E402 (what follows names operators that load() registers)
from ._attention import attention  # noqa: E402
from .errors import NotOffered  # noqa: E402
from .flash_attn_2 import *  # noqa: E402, F403
from .transformers_attention import register  # noqa: E402

__version__ = "0.1.0"

__all__ = ["NotOffered", "attention", "register"]
__all__ += flash_attn_2.__all__
