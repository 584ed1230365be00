"""The interface of flash-attn 1 (up to 1.0.9): its functions on sequences without padding, FlashAttention and FlashMHA.

Causal here is what it was there: row i sees the keys 0..i (top-left aligned), also where there are more keys than queries or fewer.
For the rest (dtypes, dropout, softmax_scale, return_attn_probs, errors) see strobe.flash_attn_2; softmax_lse is [batch, nheads,
max_seqlen_q], -inf beyond a sequence's end.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .errors import refuse
from .flash_attn_2 import Operator, Result, run
from .packing import Packing

LARGEST_FLASH_MHA_HEAD_DIM = 128


def _positions(cu_seqlens: Tensor, max_seqlen: int, total: int) -> Tensor:
    """[batch, max_seqlen]: the token at each place of each sequence; some valid token beyond its end."""
    places = torch.arange(max_seqlen, device=cu_seqlens.device)
    return (cu_seqlens[:-1, None] + places).clamp(max=max(total - 1, 0))


def _padded_lse(softmax_lse: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """[nheads, total] -> [batch, nheads, max_seqlen]"""
    padded = softmax_lse[:, _positions(cu_seqlens, max_seqlen, softmax_lse.shape[1])].transpose(0, 1)
    beyond = torch.arange(max_seqlen, device=cu_seqlens.device) >= cu_seqlens.diff()[:, None]
    return padded.masked_fill(beyond[:, None], float("-inf"))


def _varlen(operator: Operator, *tensors: Any, cu_seqlens_q: Tensor, max_seqlen_q: int, **options: Any) -> Result:
    result = run(operator, *tensors, cu_seqlens_q=cu_seqlens_q, max_seqlen_q=max_seqlen_q, **options)
    if not options["return_attn_probs"]:
        return result
    out, softmax_lse, probabilities = result
    return out, _padded_lse(softmax_lse, cu_seqlens_q, max_seqlen_q), probabilities


def _causal_from_the_top(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
                         max_seqlen_k: int, return_attn_probs: bool, **options: Any) -> Result:
    """Causal for sequences whose numbers of queries and keys differ. A window's diagonal is bottom-right aligned at each
    sequence's own lengths, but lengths of a padded batch move no diagonal, so this one goes through a padded batch.
    """
    seqlen_k = min(max_seqlen_k, max_seqlen_q)  # no row sees a key beyond the last row's number
    lengths_q, lengths_k = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    rows = _positions(cu_seqlens_q, max_seqlen_q, q.shape[0])
    keys = _positions(cu_seqlens_k, seqlen_k, k.shape[0])
    result = run(torch.ops.strobe.attention, q[rows], k[keys], v[keys], window_right=max_seqlen_q - seqlen_k,
                 query_lengths=lengths_q, key_lengths=lengths_k, return_attn_probs=return_attn_probs, **options)
    padded = result[0] if return_attn_probs else result
    tokens = torch.arange(q.shape[0], device=q.device, dtype=torch.int32)
    sequences = torch.bucketize(tokens, cu_seqlens_q[1:], right=True)
    inside = sequences < lengths_q.numel()
    sequences = sequences.clamp(max=lengths_q.numel() - 1)
    out = padded[sequences, (tokens - cu_seqlens_q[sequences]).clamp(max=max_seqlen_q - 1)] * inside[:, None, None]
    return (out, *result[1:]) if return_attn_probs else out


def flash_attn_unpadded_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                             max_seqlen_q: int, max_seqlen_k: int, dropout_p: float, softmax_scale: float | None = None,
                             causal: bool = False, return_attn_probs: bool = False,
                             deterministic: bool = False) -> Result:
    """q [total_q, nheads, head_dim], k and v [total_k, nheads, head_dim], cu_seqlens [batch + 1] int32 -> out like q."""
    options: dict[str, Any] = dict(dropout_p=dropout_p, softmax_scale=softmax_scale, deterministic=deterministic,
                                   return_attn_probs=return_attn_probs)
    if causal and cu_seqlens_q is not cu_seqlens_k:
        return _causal_from_the_top(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)
    return _varlen(torch.ops.strobe.attention, q, k, v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
                   max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k, causal=causal, **options)


def flash_attn_unpadded_kvpacked_func(q: Tensor, kv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                                      max_seqlen_q: int, max_seqlen_k: int, dropout_p: float,
                                      softmax_scale: float | None = None, causal: bool = False,
                                      return_attn_probs: bool = False, deterministic: bool = False) -> Result:
    """q [total_q, nheads, head_dim], kv [total_k, 2, nheads, head_dim] -> out like q."""
    k, v = kv.unbind(-3)
    return flash_attn_unpadded_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                                    softmax_scale, causal, return_attn_probs, deterministic)


def flash_attn_unpadded_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float,
                                       softmax_scale: float | None = None, causal: bool = False,
                                       return_attn_probs: bool = False, deterministic: bool = False) -> Result:
    """qkv [total, 3, nheads, head_dim], cu_seqlens [batch + 1] int32 -> out [total, nheads, head_dim]."""
    return _varlen(torch.ops.strobe.attention_qkvpacked, qkv.flatten(-3, -2), qkv.shape[-2], cu_seqlens_q=cu_seqlens,
                   cu_seqlens_k=cu_seqlens, max_seqlen_q=max_seqlen, max_seqlen_k=max_seqlen, causal=causal,
                   dropout_p=dropout_p, softmax_scale=softmax_scale, deterministic=deterministic,
                   return_attn_probs=return_attn_probs)


def flash_attn_unpadded_qkvpacked_split_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen0: int, max_seqlen1: int,
                                             batch_size0: int, dropout_p: float, softmax_scale: float | None = None,
                                             causal: bool = False, return_attn_probs: bool = False) -> Result:
    """The same for a batch whose first batch_size0 sequences have max_seqlen0 at most, the others max_seqlen1. The kernels skip what
    is beyond a sequence's end, so nothing is gained by the split.
    """
    del batch_size0
    return flash_attn_unpadded_qkvpacked_func(qkv, cu_seqlens, max(max_seqlen0, max_seqlen1), dropout_p, softmax_scale, causal,
                                              return_attn_probs)


class FlashAttention(nn.Module):
    """softmax(softmax_scale * q k^T) v on packed q, k and v, with dropout on the weights while training."""

    def __init__(self, softmax_scale: float | None = None, attention_dropout: float = 0.0) -> None:
        super().__init__()
        self.softmax_scale = softmax_scale
        self.dropout_p = attention_dropout

    def forward(self, qkv: Tensor, key_padding_mask: Tensor | None = None, causal: bool = False,
                cu_seqlens: Tensor | None = None, max_s: int | None = None,
                need_weights: bool = False) -> tuple[Tensor, None]:
        """
        Args:
            qkv: [batch, seqlen, 3, nheads, head_dim], or [total, 3, nheads, head_dim] beside cu_seqlens
            key_padding_mask: [batch, seqlen] bool, true where a token is kept, wherever the padding stands. The output is 0
                where it is false, and causal counts kept tokens.
            cu_seqlens, max_s: [batch + 1] int32 and the longest sequence, for tokens without padding

        Returns:
            the output, qkv's shape without the 3, and None in the place of the weights
        """
        refuse("FlashAttention", "need_weights", "attention probabilities", need_weights, expected=False)
        options: dict[str, Any] = dict(dropout_p=self.dropout_p if self.training else 0.0,
                                       softmax_scale=self.softmax_scale, causal=causal)
        if cu_seqlens is not None:
            if max_s is None:
                raise ValueError("FlashAttention: max_s: expected the longest sequence beside cu_seqlens, found None")
            return flash_attn_unpadded_qkvpacked_func(qkv, cu_seqlens, max_s, **options), None
        if key_padding_mask is not None:
            packing = Packing.of(key_padding_mask)
            out = flash_attn_unpadded_qkvpacked_func(packing.pack(qkv), packing.cu_seqlens, packing.max_seqlen, **options)
            return packing.unpack(out), None
        return run(torch.ops.strobe.attention_qkvpacked, qkv.flatten(-3, -2), qkv.shape[-2], return_attn_probs=False,
                   **options), None


class FlashMHA(nn.Module):
    """Multi-head self-attention with one projection for q, k and v: parameters Wqkv and out_proj."""

    def __init__(self, embed_dim: int, num_heads: int, bias: bool = True, batch_first: bool = True,
                 attention_dropout: float = 0.0, causal: bool = False, device: torch.device | None = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__()
        refuse("FlashMHA", "batch_first", "[seqlen, batch, embed_dim]", batch_first, expected=True)
        if embed_dim % num_heads != 0:
            raise ValueError(f"FlashMHA: num_heads: expected a divisor of embed_dim {embed_dim}, found {num_heads}")
        head_dim = embed_dim // num_heads
        if head_dim % 8 != 0 or head_dim > LARGEST_FLASH_MHA_HEAD_DIM:
            raise ValueError("FlashMHA: embed_dim / num_heads: expected a multiple of 8 up to "
                             f"{LARGEST_FLASH_MHA_HEAD_DIM}, found {head_dim}")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.causal = causal
        self.Wqkv = nn.Linear(embed_dim, 3 * embed_dim, bias=bias, device=device, dtype=dtype)
        self.inner_attn = FlashAttention(attention_dropout=attention_dropout)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = False) -> tuple[Tensor, None]:
        """x [batch, seqlen, embed_dim], key_padding_mask [batch, seqlen] bool, true where a token is kept -> (like x, None)."""
        qkv = self.Wqkv(x).reshape(*x.shape[:-1], 3, self.num_heads, self.head_dim)
        out, weights = self.inner_attn(qkv, key_padding_mask, causal=self.causal, need_weights=need_weights)
        return self.out_proj(out.flatten(-2)), weights
