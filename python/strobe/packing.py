"""Padded batches as sequences without padding, by sizes alone: no number is read from the device, so it works in CUDA graphs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Permute(torch.autograd.Function):
    """t[order] along dimension 0; the gradient is a gather too, which is faster than the general one and repeatable."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return t.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


def _permute(t: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    permuted: Tensor = _Permute.apply(t, order, inverse)  # type: ignore[no-untyped-call]
    return permuted


class Packing(NamedTuple):
    """Where the tokens of a [B, N] batch go: those that are kept to the front, in their order, the others behind them.

    Behind cu_seqlens[B] the operators write zeros, so the padding costs its copy and nothing else.
    """

    order: Tensor  # [B * N] int64: which token stands at each place
    place: Tensor  # [B * N] int64: where each token stands, the inverse
    cu_seqlens: Tensor  # [B + 1] int32
    batch: int
    max_seqlen: int  # N

    @classmethod
    def of(cls, kept: Tensor) -> "Packing":
        """kept: [B, N] bool, true where a token is kept."""
        batch, seqlen = kept.shape
        flat = kept.flatten()
        total = flat.sum()
        place = torch.where(flat, flat.cumsum(0) - 1, total - 1 + (~flat).cumsum(0))
        order = torch.empty_like(place).scatter_(0, place, torch.arange(flat.numel(), device=flat.device))
        cu_seqlens = torch.nn.functional.pad(kept.sum(1).cumsum(0, dtype=torch.int32), (1, 0))
        return cls(order, place, cu_seqlens, batch, seqlen)

    def pack(self, t: Tensor) -> Tensor:
        """[B, N, ...] -> [B * N, ...]"""
        return _permute(t.flatten(0, 1), self.order, self.place)

    def unpack(self, t: Tensor) -> Tensor:
        """[B * N, ...] -> [B, N, ...]"""
        return _permute(t, self.place, self.order).reshape(self.batch, self.max_seqlen, *t.shape[1:])
