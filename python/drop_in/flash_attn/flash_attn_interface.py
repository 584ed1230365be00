"""The functions of flash-attn 1 (unpadded, causal from the top left) and of flash-attn 2 (the rest)."""

from strobe import flash_attn_2
from strobe.flash_attn_1 import (
    flash_attn_unpadded_func,
    flash_attn_unpadded_kvpacked_func,
    flash_attn_unpadded_qkvpacked_func,
    flash_attn_unpadded_qkvpacked_split_func,
)
from strobe.flash_attn_2 import *  # noqa: F403

__all__ = [
    "flash_attn_unpadded_func",
    "flash_attn_unpadded_kvpacked_func",
    "flash_attn_unpadded_qkvpacked_func",
    "flash_attn_unpadded_qkvpacked_split_func",
]
__all__ += flash_attn_2.__all__
