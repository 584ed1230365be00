"""flash_attn.bert_padding as flash-attn 1 and 2 (up to 2.6) have it: taking padding out of a batch and putting it back."""

import torch
from torch import Tensor


def index_first_axis(x: Tensor, indices: Tensor) -> Tensor:
    """x [n, ...], indices [m] int64 -> [m, ...]"""
    return x.index_select(0, indices)


def index_put_first_axis(values: Tensor, indices: Tensor, first_axis_dim: int) -> Tensor:
    """values [m, ...], indices [m] int64 without repetitions -> [first_axis_dim, ...], zero where no index points."""
    return values.new_zeros(first_axis_dim, *values.shape[1:]).index_copy(0, indices, values)


def unpad_input(hidden_states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Takes padding out; reads the number of kept tokens from the device.

    Args:
        hidden_states: [batch, seqlen, ...]
        attention_mask: [batch, seqlen], bool or 0/1, 1 where a token is kept

    Returns:
        the kept tokens [total, ...], their indices into the flattened batch [total] int64, cu_seqlens [batch + 1] int32 and
        the longest sequence.
    """
    lengths = attention_mask.sum(-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return index_first_axis(hidden_states.flatten(0, 1), indices), indices, cu_seqlens, int(lengths.max())


def pad_input(hidden_states: Tensor, indices: Tensor, batch: int, seqlen: int) -> Tensor:
    """The inverse: hidden_states [total, ...] -> [batch, seqlen, ...], zero where there was padding."""
    return index_put_first_axis(hidden_states, indices, batch * seqlen).reshape(batch, seqlen, *hidden_states.shape[1:])
