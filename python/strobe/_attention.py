"""strobe.attention: exact attention that never stores the N x N matrix."""

from typing import Literal, overload

import torch
from torch import Tensor

AttnType = Literal["dotscale", "flash_attn", "imp_flash_attn"]


@overload
def attention(q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[False] = ..., attn_type: AttnType = ...,
              softmax_scale: float | None = ..., causal: bool = ..., window_left: int = ..., window_right: int = ...,
              key_lengths: Tensor | None = ..., query_lengths: Tensor | None = ..., cu_seqlens_q: Tensor | None = ...,
              cu_seqlens_k: Tensor | None = ..., max_seqlen_q: int | None = ..., max_seqlen_k: int | None = ...,
              dropout_p: float = ..., deterministic: bool = ..., rng_state: Tensor | None = ...) -> Tensor: ...


@overload
def attention(q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[True], attn_type: AttnType = ...,
              softmax_scale: float | None = ..., causal: bool = ..., window_left: int = ..., window_right: int = ...,
              key_lengths: Tensor | None = ..., query_lengths: Tensor | None = ..., cu_seqlens_q: Tensor | None = ...,
              cu_seqlens_k: Tensor | None = ..., max_seqlen_q: int | None = ..., max_seqlen_k: int | None = ...,
              dropout_p: float = ..., deterministic: bool = ...,
              rng_state: Tensor | None = ...) -> tuple[Tensor, Tensor]: ...


def attention(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool = False, attn_type: AttnType = "imp_flash_attn",
              softmax_scale: float | None = None, causal: bool = False, window_left: int = -1, window_right: int = -1,
              key_lengths: Tensor | None = None, query_lengths: Tensor | None = None,
              cu_seqlens_q: Tensor | None = None, cu_seqlens_k: Tensor | None = None, max_seqlen_q: int | None = None,
              max_seqlen_k: int | None = None, dropout_p: float = 0.0, deterministic: bool = False,
              rng_state: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """dropout(softmax(softmax_scale * q k^T + mask)) v, with gradients.

    Args:
        q: [B, Nq, Hq, D], or [total_q, Hq, D] beside cu_seqlens. Views (packed, transposed) are taken as they are where
            their last dimension is contiguous. fp16 and bf16 on CUDA, fp32 and bf16 on the CPU; autocast casts.
        k, v: [B, Nk, Hk, D], or [total_k, Hk, D]; Hk divides Hq, and query head h uses head h // (Hq // Hk).
            D is a multiple of 8 up to 128, or 256.
        return_lse: also return softmax_lse.
        attn_type: "imp_flash_attn" (FlashAttention-2 or the device's best), "flash_attn" (as published in 2022) or
            "dotscale" (stores the matrix).
        softmax_scale: > 0; None is 1 / sqrt(D).
        causal, window_left, window_right: row i sees the keys i + Nk - Nq - window_left .. i + Nk - Nq + window_right
            (bottom-right aligned); -1 is unlimited; causal is window_right = 0 or less.
        key_lengths, query_lengths: [B] int32. Keys and rows at or beyond them are hidden; no diagonal moves. A hidden row's
            output is 0.
        cu_seqlens_q, cu_seqlens_k: [B + 1] int32, both or neither: sequence b is tokens cu_seqlens[b]..cu_seqlens[b+1]-1.
            Tokens beyond the last sequence get 0.
        max_seqlen_q, max_seqlen_k: upper bounds of the sequences' lengths; needed on CUDA beside cu_seqlens.
        dropout_p: the probability of dropping a weight, 0 <= dropout_p < 1, drawn whenever it is not 0.
        deterministic: bitwise repeatable gradients on CUDA (the CPU's always are).
        rng_state: [2] int64 {seed, offset} on q's device, instead of drawing it from torch's generator.

    Returns:
        out like q; with return_lse also softmax_lse, fp32, [B, Hq, Nq] ([Hq, total_q]): the natural log of the sum of exp
        of the scaled, masked scores, -inf in a row that sees no key. It is differentiable.

    Raises:
        RuntimeError: naming the argument, what was expected and what was found.
    """
    out, softmax_lse = torch.ops.strobe.attention(
        q, k, v, attn_type=attn_type, softmax_scale=softmax_scale, causal=causal, window_left=window_left,
        window_right=window_right, key_lengths=key_lengths, query_lengths=query_lengths, cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k, max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k, dropout_p=dropout_p,
        deterministic=deterministic, return_lse=return_lse, rng_state=rng_state)
    return (out, softmax_lse) if return_lse else out
