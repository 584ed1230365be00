"""flash-attn 2's public cases as its documentation and option lists give them: a sample of the whole grid, values against the
double-precision oracle, what is not offered refused by name.
"""

import random

import pytest
import torch
from conftest import DEVICE, DTYPES
from oracle import attend, check_gradients, visible

import strobe

SEQLENS = [(113, 203), (128, 217), (113, 211), (108, 256), (256, 512), (512, 256), (1024, 1024), (1023, 1024), (1024, 1023),
           (1, 147), (1, 1), (239, 1), (3, 799)]
HEAD_DIMS = [32, 40, 59, 64, 80, 96, 111, 128, 160, 192, 224, 256]
GRID = dict(kvpacked=[False, True], dtype=DTYPES, heads_k=[4, 2, 1], deterministic=[False, True], alibi=[False, True],
            local=[False, True], causal=[False, True], head_dim=HEAD_DIMS, seqlens=SEQLENS, dropout_p=[0.0, 0.17],
            softcap=[0.0, 50.0], varlen=[False, True])
COUNT = 1500 if DEVICE == "cuda" else 160
HEADS = 4
BATCH = 2


def sample():
    draw = random.Random(0)
    cases = [{name: draw.choice(values) for name, values in GRID.items()} for _ in range(COUNT)]
    return [pytest.param(case, id="-".join(f"{n}={v}" for n, v in case.items()),
                         marks=pytest.mark.flash_attn_2("refused" if case["alibi"] or case["softcap"] else "passed"))
            for case in cases]


def dropout_mask(batch, nq, nk, p, seed):
    """[B, H, Nq, Nk]: what the weights are multiplied with, read off uniform weights over one-hot values."""
    torch.manual_seed(seed)
    nothing = torch.zeros(batch, nq, HEADS, nk)
    values = torch.eye(nk)[None, :, None].expand(batch, nk, HEADS, nk)
    out = strobe.attention(nothing, nothing.new_zeros(batch, nk, HEADS, nk), values, attn_type="dotscale", dropout_p=p)
    return (out * nk).transpose(1, 2)


def draw_inputs(case, nq, nk):
    return [torch.randn(BATCH, n, h, case["head_dim"], dtype=case["dtype"])
            for n, h in ((nq, HEADS), (nk, case["heads_k"]), (nk, case["heads_k"]))]


def lengths(n):
    return [max(1, n // 3), n] if n > 1 else [1, 1]


def cumulative(values):
    return torch.tensor([0, values[0], values[0] + values[1]], dtype=torch.int32)


def joined(t, parts):
    return torch.cat([t[b, :n] for b, n in enumerate(parts)])


def call(case, window, q, k, v):
    """Through the function of flash-attn 2 that the case asks for."""
    options = dict(dropout_p=case["dropout_p"], causal=case["causal"], window_size=window, softcap=case["softcap"],
                   alibi_slopes=torch.ones(HEADS) if case["alibi"] else None, deterministic=case["deterministic"])
    torch.manual_seed(7)
    if not case["varlen"]:
        if case["kvpacked"]:
            return strobe.flash_attn_kvpacked_func(q, torch.stack([k, v], 2), **options)
        return strobe.flash_attn_func(q, k, v, **options)
    nq, nk = q.shape[1], k.shape[1]
    lq, lk = lengths(nq), lengths(nk)
    q, k, v = joined(q, lq), joined(k, lk), joined(v, lk)
    sequences = (cumulative(lq), cumulative(lk), nq, nk)
    if case["kvpacked"]:
        return strobe.flash_attn_varlen_kvpacked_func(q, torch.stack([k, v], 1), *sequences, **options)
    return strobe.flash_attn_varlen_func(q, k, v, *sequences, **options)


def by_definition(case, window, kept, q, k, v):
    nq, nk = q.shape[1], k.shape[1]
    if not case["varlen"]:
        return attend(q, k, v, visible(nq, nk, case["causal"], window), kept=kept)[0]
    outs = []
    for b, (a, c) in enumerate(zip(lengths(nq), lengths(nk))):
        part = None if kept is None else kept[b : b + 1, :, :a, :c]
        outs.append(attend(q[b : b + 1, :a], k[b : b + 1, :c], v[b : b + 1, :c], visible(a, c, case["causal"], window), kept=part)[0][0])
    return torch.cat(outs)


@pytest.mark.parametrize("case", sample())
def test_case(case):
    nq, nk = case["seqlens"]
    if case["varlen"]:
        nq, nk = max(nq, 2), max(nk, 2)
    window = tuple(random.Random(str(case)).randint(0, nk) for _ in range(2)) if case["local"] else (-1, -1)
    q, k, v = draw_inputs(case, nq, nk)
    if case["alibi"] or case["softcap"]:
        with pytest.raises(strobe.NotOffered, match=": softcap: expected 0.0" if case["softcap"] else ": alibi_slopes: expected None"):
            call(case, window, q, k, v)
        return
    kept = dropout_mask(BATCH, nq, nk, case["dropout_p"], 7) if case["dropout_p"] else None

    def plain(*inputs):
        return by_definition(case, window, kept, *inputs)

    check_gradients(lambda *inputs: call(case, window, *inputs), plain, plain, [q, k, v])


@pytest.mark.flash_attn_2("passed")
@pytest.mark.parametrize("varlen", [False, True])
@pytest.mark.parametrize("head_dim", [32, 59, 128])
def test_qkvpacked(dtype, varlen, head_dim):
    qkv = torch.randn(BATCH, 97, 3, HEADS, head_dim, dtype=dtype)

    def run(qkv):
        if not varlen:
            return strobe.flash_attn_qkvpacked_func(qkv, causal=True, window_size=(20, 0))
        packed = strobe.flash_attn_varlen_qkvpacked_func(qkv.flatten(0, 1), torch.tensor([0, 97, 194], dtype=torch.int32), 97,
                                                         causal=True, window_size=(20, 0))
        return packed.unflatten(0, (BATCH, 97))

    def plain(qkv):
        return attend(*qkv.unbind(2), visible(97, 97, True, (20, 0)))[0]

    check_gradients(run, plain, plain, [qkv])


@pytest.mark.flash_attn_2("passed")
@pytest.mark.parametrize("causal", [False, True])
def test_softmax_lse(dtype, causal):
    q, k = torch.randn(2, 50, 4, 32, dtype=dtype), torch.randn(2, 40, 2, 32, dtype=dtype)
    out, lse, probabilities = strobe.flash_attn_func(q, k, k, causal=causal, return_attn_probs=True)
    exact_out, exact = attend(q.double(), k.double(), k.double(), visible(50, 40, causal))
    assert lse.shape == (2, 4, 50) and lse.dtype == torch.float32
    assert torch.equal(lse.isinf(), exact.isinf())  # rows that see no key
    assert not out[exact.isinf().transpose(1, 2)].any()
    # fp32 sums of products that are exact in fp32, and one rounding of the result
    bound = torch.finfo(torch.float32).eps * (32**0.5 * exact_out.abs().max() + exact[exact.isfinite()].abs().max()) * 8
    assert (lse - exact)[exact.isfinite()].abs().max() <= bound
    for use in (lambda: probabilities.shape, lambda: probabilities[0]):
        with pytest.raises(strobe.NotOffered, match="attention probabilities are not offered"):
            use()
    cu = torch.tensor([0, 20, 50], dtype=torch.int32)
    _, packed, _ = strobe.flash_attn_varlen_func(q[0], q[0], q[0], cu, cu, 30, 30, return_attn_probs=True)
    assert packed.shape == (4, 50)


@pytest.mark.flash_attn_2("passed")
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_statistics(p):
    """The share of dropped weights, that heads and sequences differ, and what remains is scaled by 1 / (1 - p)."""
    n, dtype = 64, DTYPES[1]
    nothing = torch.zeros(8, n, 8, n, dtype=dtype)
    values = torch.eye(n, dtype=dtype)[None, :, None].expand(8, n, 8, n)
    out = strobe.flash_attn_func(nothing, nothing, values, dropout_p=p).float() * n
    dropped = out == 0
    deviation = (p * (1 - p) / out.numel()) ** 0.5
    assert abs(dropped.double().mean().item() - p) < 5 * deviation
    assert (out[~dropped] - 1 / (1 - p)).abs().max() < 2 * torch.finfo(dtype).eps / (1 - p)
    heads = dropped.transpose(1, 2).flatten(0, 1).flatten(1)
    assert len(heads.unique(dim=0)) == 64
    again = strobe.flash_attn_func(nothing, nothing, values, dropout_p=p).float() * n
    assert not torch.equal(again == 0, dropped)


@pytest.mark.flash_attn_2("passed")
def test_deterministic_gradients_repeat(dtype):
    q, k, v = (torch.randn(2, 300, 4, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    grad = torch.randn(2, 300, 4, 64, dtype=dtype)

    def once():
        return torch.autograd.grad(strobe.flash_attn_func(q, k, v, causal=True, deterministic=True), (q, k, v), grad)

    first = once()
    for _ in range(20 if DEVICE == "cuda" else 3):
        assert all(torch.equal(a, b) for a, b in zip(first, once()))


@pytest.mark.flash_attn_2("refused")
def test_paged_and_updated_caches_are_refused():
    q = torch.zeros(4, 4, 32, dtype=DTYPES[1])
    cu = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(strobe.NotOffered, match="flash_attn_varlen_func: block_table: expected None .a paged cache is not offered."):
        strobe.flash_attn_varlen_func(q, q, q, cu, cu, 4, 4, block_table=torch.zeros(1, 1, dtype=torch.int32))
    with pytest.raises(strobe.NotOffered, match="flash_attn_with_kvcache: caches that a call updates are not offered"):
        strobe.flash_attn_with_kvcache(q, q, q)


@pytest.mark.flash_attn_2("refused")
def test_head_dims_above_256_are_refused():
    q = torch.zeros(1, 4, 1, 264, dtype=DTYPES[1])
    with pytest.raises(RuntimeError, match="head_dim: expected a multiple of 8 up to 128, or 256, (got|found) 264"):
        strobe.flash_attn_func(q, q, q)
