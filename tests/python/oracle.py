"""Attention by its definition, and the bound that results are held to."""

import math

import torch
from torch import Tensor


def visible(nq: int, nk: int, causal: bool = False, window: tuple[int, int] = (-1, -1), top_left: bool = False) -> Tensor:
    """[Nq, Nk] bool: which keys each row sees."""
    left, right = window
    if causal:
        right = 0 if right < 0 else min(right, 0)
    diagonal = torch.arange(nq)[:, None] + (0 if top_left else nk - nq)
    keys = torch.arange(nk)
    seen = torch.ones(nq, nk, dtype=torch.bool)
    if left >= 0:
        seen &= keys >= diagonal - left
    if right >= 0:
        seen &= keys <= diagonal + right
    return seen


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, scale: float | None = None,
           kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """q [B, Nq, Hq, D], k and v [B, Nk, Hk, D], seen broadcast to [B, H, Nq, Nk]; kept [B, H, Nq, Nk] multiplies the weights
    (dropout). Every product and sum is rounded to the dtype of q: with fp64 this is the oracle, else the plain formula.
    """
    groups = q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(groups, dim=2).transpose(1, 2) for t in (k, v))
    scores = (q.transpose(1, 2) @ k.transpose(2, 3)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if seen is not None:
        scores = scores.masked_fill(~seen, -math.inf)
    empty = (scores == -math.inf).all(-1, keepdim=True) if scores.shape[-1] else scores.new_ones(*scores.shape[:-1], 1).bool()
    lse = scores.masked_fill(empty, 0.0).double().logsumexp(-1).masked_fill(empty.squeeze(-1), -math.inf)
    weights = scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    if kept is not None:
        weights = weights * kept.to(weights.dtype)
    return (weights @ v).transpose(1, 2), lse


def gradients(run, inputs: list[Tensor], grad_out: Tensor) -> list[Tensor]:
    """The output of run(*inputs) and the gradients of the inputs."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = run(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out.to(out.dtype))]


def largest(t: Tensor) -> float:
    return t.abs().max().item() if t.numel() else 0.0


def check(found: Tensor, plain: Tensor, exact: Tensor, factor: float, scores: float = 0.0, cancelled: float = 0.0) -> None:
    """|found - exact| <= factor * |plain - exact| and a rounding: flash-attn's own rule, with FlashAttention-3's allowance
    2 |(x + 0.3 - 0.3) - x|. In fp32 the plain formula is often exact by accident; there one more rounding of the scores, which
    changes a weight by eps * |score|, and of the summed terms is allowed. Where everything cancels (a softmax over one key has no
    gradient), `cancelled` is what roundings may leave of it.
    """
    assert found.shape == exact.shape
    assert found.isfinite().all()
    dtype = found.dtype
    rounded = exact.to(dtype)
    allowed = 2 * largest((rounded + 0.3 - 0.3) - rounded)
    if dtype == torch.float32:
        allowed += 2 * torch.finfo(dtype).eps * (1 + scores) * largest(exact)
    if largest(exact) < 1e-12:
        allowed += cancelled
    error, bound = largest(found.double() - exact), factor * largest(plain.double() - exact) + allowed
    assert error <= bound, f"error {error:.3g}, bound {bound:.3g}"


def check_gradients(run, plain, exact, inputs: list[Tensor]) -> None:
    """Output within 2 times, gradients within 3 times the plain formula's error."""
    grad = torch.randn_like(plain(*inputs))
    found = gradients(run, inputs, grad)
    same_precision = gradients(plain, inputs, grad)
    truth = gradients(exact, [t.double() for t in inputs], grad.double())
    head_dim, value = inputs[0].shape[-1], max(largest(t) for t in inputs)
    scores = value**2 * head_dim**0.5
    # dS is the difference of two sums of head_dim products, which fp32 rounds; the second, delta, is of dO and the output as it is
    # stored, which is rounded too. A gradient sums dS over up to as many rows as a head of keys has.
    summed = torch.finfo(torch.float32).eps * head_dim**2 * value * largest(grad)
    stored = largest((grad.double() * (found[0].double() - truth[0])).sum(-1))
    rows = inputs[0].shape[-3] * (inputs[0].shape[-2] // inputs[-1].shape[-2])
    cancelled = (summed + stored) * value * head_dim**-0.5 * rows**0.5
    for i, values in enumerate(zip(found, same_precision, truth)):
        check(*values, factor=2 if i == 0 else 3, scores=scores, cancelled=cancelled)
