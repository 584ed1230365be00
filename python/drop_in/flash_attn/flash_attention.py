"""flash-attn 1's modules."""

from strobe.flash_attn_1 import FlashAttention, FlashMHA

__all__ = ["FlashAttention", "FlashMHA"]
