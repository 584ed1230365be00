"""The functions of flash-attn 2 with its names, layouts and argument meaning, over strobe's operators.

What all of them share:
    dtypes: fp16 and bf16 on CUDA, fp32 and bf16 on the CPU; under autocast the region's.
    head_dim: up to 256. One that the kernels do not have is filled up with zeros, which costs a copy.
    dropout_p: drawn whenever it is not 0; pass 0.0 in evaluation.
    softmax_scale: > 0; None is 1 / sqrt(head_dim).
    causal, window_size: bottom-right aligned; window_size is (left, right), -1 unlimited.
    softcap, alibi_slopes, block_table: not offered; NotOffered (a NotImplementedError) unless they keep their defaults.
    deterministic: bitwise repeatable gradients.
    return_attn_probs: returns (out, softmax_lse, probabilities) instead of out. softmax_lse is fp32, [batch, nheads, seqlen_q]
        or in varlen [nheads, total_q], natural log, -inf in a row that sees no key (out is 0 there). The probabilities are
        not offered: what stands in their place raises NotOffered when it is used.
    Errors of shapes, dtypes and devices: RuntimeError naming the argument, what was expected and what was found.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .errors import NotOffered, refuse

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]

LARGEST_HEAD_DIM = 256
LARGEST_SMALL_HEAD_DIM = 128


class _Probabilities:
    """Stands where flash-attn returns attention probabilities; refuses by name when it is used."""

    def __getattr__(self, name: str) -> Any:
        raise NotOffered(f"flash_attn: attention probabilities are not offered (asked for .{name}); softmax_lse is")

    def __getitem__(self, index: object) -> Any:
        raise NotOffered("flash_attn: attention probabilities are not offered; softmax_lse is")


PROBABILITIES = _Probabilities()

# out, or with return_attn_probs (out, softmax_lse, PROBABILITIES). Any spares callers, who know which, the check of a union.
Result = Tensor | Any
Operator = Callable[..., tuple[Tensor, Tensor]]  # one of torch.ops.strobe's public operators


def fill_head_dim(t: Tensor) -> Tensor:
    """t with zeros up to the next head dim that the kernels have; dot products do not change."""
    head_dim = t.shape[-1]
    fits = -head_dim % 8 if head_dim <= LARGEST_SMALL_HEAD_DIM else LARGEST_HEAD_DIM - head_dim
    return torch.nn.functional.pad(t, (0, fits)) if fits > 0 else t


def run(operator: Operator, *tensors: Any, return_attn_probs: bool,
        softmax_scale: float | None, **options: Any) -> Result:
    """The operator on tensors of any head dim; `tensors` may end in plain numbers."""
    head_dim = tensors[0].shape[-1]
    filled = [fill_head_dim(t) if isinstance(t, Tensor) else t for t in tensors]
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    out, softmax_lse = operator(*filled, softmax_scale=scale, return_lse=return_attn_probs, **options)
    if filled[0].shape[-1] != head_dim:
        out = out[..., :head_dim]
    return (out, softmax_lse, PROBABILITIES) if return_attn_probs else out


def _options(function: str, dropout_p: float, causal: bool, window_size: tuple[int, int], softcap: float,
             alibi_slopes: Tensor | None, deterministic: bool) -> dict[str, Any]:
    refuse(function, "softcap", "softcap", softcap, expected=0.0)
    refuse(function, "alibi_slopes", "ALiBi", alibi_slopes)
    left, right = window_size
    return dict(dropout_p=dropout_p, causal=causal, window_left=left, window_right=right, deterministic=deterministic)


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                    causal: bool = False, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                    alibi_slopes: Tensor | None = None, deterministic: bool = False,
                    return_attn_probs: bool = False) -> Result:
    """q [batch, seqlen_q, nheads, head_dim], k and v [batch, seqlen_k, nheads_k, head_dim] -> out like q."""
    options = _options("flash_attn_func", dropout_p, causal, window_size, softcap, alibi_slopes, deterministic)
    return run(torch.ops.strobe.attention, q, k, v, softmax_scale=softmax_scale, return_attn_probs=return_attn_probs, **options)


def flash_attn_qkvpacked_func(qkv: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                              causal: bool = False, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                              alibi_slopes: Tensor | None = None, deterministic: bool = False,
                              return_attn_probs: bool = False) -> Result:
    """qkv [batch, seqlen, 3, nheads, head_dim] -> out [batch, seqlen, nheads, head_dim]; the gradient is one packed tensor."""
    options = _options("flash_attn_qkvpacked_func", dropout_p, causal, window_size, softcap, alibi_slopes, deterministic)
    return run(torch.ops.strobe.attention_qkvpacked, qkv.flatten(-3, -2), qkv.shape[-2], softmax_scale=softmax_scale,
               return_attn_probs=return_attn_probs, **options)


def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                             causal: bool = False, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                             alibi_slopes: Tensor | None = None, deterministic: bool = False,
                             return_attn_probs: bool = False) -> Result:
    """q [batch, seqlen_q, nheads, head_dim], kv [batch, seqlen_k, 2, nheads_k, head_dim] -> out like q."""
    options = _options("flash_attn_kvpacked_func", dropout_p, causal, window_size, softcap, alibi_slopes, deterministic)
    return run(torch.ops.strobe.attention_kvpacked, q, kv.flatten(-3, -2), softmax_scale=softmax_scale,
               return_attn_probs=return_attn_probs, **options)


def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                           softmax_scale: float | None = None, causal: bool = False,
                           window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                           alibi_slopes: Tensor | None = None, deterministic: bool = False,
                           return_attn_probs: bool = False, block_table: Tensor | None = None) -> Result:
    """q [total_q, nheads, head_dim], k and v [total_k, nheads_k, head_dim], cu_seqlens [batch + 1] int32 -> out like q."""
    function = "flash_attn_varlen_func"
    refuse(function, "block_table", "a paged cache", block_table)
    options = _options(function, dropout_p, causal, window_size, softcap, alibi_slopes, deterministic)
    return run(torch.ops.strobe.attention, q, k, v, softmax_scale=softmax_scale, return_attn_probs=return_attn_probs,
               cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, max_seqlen_q=max_seqlen_q,
               max_seqlen_k=max_seqlen_k, **options)


def flash_attn_varlen_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float = 0.0,
                                     softmax_scale: float | None = None, causal: bool = False,
                                     window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                                     alibi_slopes: Tensor | None = None, deterministic: bool = False,
                                     return_attn_probs: bool = False) -> Result:
    """qkv [total, 3, nheads, head_dim], cu_seqlens [batch + 1] int32 -> out [total, nheads, head_dim]."""
    options = _options("flash_attn_varlen_qkvpacked_func", dropout_p, causal, window_size, softcap, alibi_slopes, deterministic)
    return run(torch.ops.strobe.attention_qkvpacked, qkv.flatten(-3, -2), qkv.shape[-2], softmax_scale=softmax_scale,
               return_attn_probs=return_attn_probs, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens,
               max_seqlen_q=max_seqlen, max_seqlen_k=max_seqlen, **options)


def flash_attn_varlen_kvpacked_func(q: Tensor, kv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                                    max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                                    softmax_scale: float | None = None, causal: bool = False,
                                    window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                                    alibi_slopes: Tensor | None = None, deterministic: bool = False,
                                    return_attn_probs: bool = False) -> Result:
    """q [total_q, nheads, head_dim], kv [total_k, 2, nheads_k, head_dim], cu_seqlens [batch + 1] int32 -> out like q."""
    options = _options("flash_attn_varlen_kvpacked_func", dropout_p, causal, window_size, softcap, alibi_slopes, deterministic)
    return run(torch.ops.strobe.attention_kvpacked, q, kv.flatten(-3, -2), softmax_scale=softmax_scale,
               return_attn_probs=return_attn_probs, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
               max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k, **options)


def flash_attn_with_kvcache(*_arguments: Any, **_named: Any) -> Tensor:
    """Not offered: raises NotOffered."""
    raise NotOffered("flash_attn_with_kvcache: caches that a call updates are not offered; append to k and v, then call "
                     "flash_attn_func, or strobe.attention with key_lengths for a preallocated cache")
