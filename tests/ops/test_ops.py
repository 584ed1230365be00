"""The operators as Python sees them: torch.library.opcheck, gradcheck, torch.compile, and gradients beside ATen's attention.

STROBE_OPS_LIBRARY names the library; ctest sets it.
"""

import os

import pytest
import torch

torch.ops.load_library(os.environ["STROBE_OPS_LIBRARY"])
torch.set_num_threads(1)  # the tensors are small
strobe = torch.ops.strobe

FLASH_TYPES = ["flash_attn", "imp_flash_attn"]
TYPES = ["dotscale", *FLASH_TYPES]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def leaf(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def qkv(nq=6, nk=7, heads_q=4, heads_k=2, dtype=torch.float32, dim=8):
    return [leaf(2, nq, heads_q, dim, dtype=dtype), leaf(2, nk, heads_k, dim, dtype=dtype),
            leaf(2, nk, heads_k, dim, dtype=dtype)]


def varlen(dtype=torch.float32):
    """Sequences of 3, 0 and 5 queries with 4, 2 and 3 keys, and two tokens of no sequence."""
    tensors = [leaf(10, 4, 8, dtype=dtype), leaf(11, 2, 8, dtype=dtype), leaf(11, 2, 8, dtype=dtype)]
    return tensors, dict(cu_seqlens_q=ints(0, 3, 3, 8), cu_seqlens_k=ints(0, 4, 6, 9), max_seqlen_q=5, max_seqlen_k=4)


# opcheck: the schema tells the truth, autograd is registered properly, Meta agrees with the kernels, and AOTAutograd
# traces forward and backward with dynamic shapes.

OPTIONS = {
    "plain": {},
    "causal_lse": dict(causal=True, return_lse=True),
    "window": dict(window_left=2, window_right=1),
    "lengths": dict(key_lengths=ints(3, 7), query_lengths=ints(6, 2)),
    "dropout": dict(dropout_p=0.2),
    "dropout_given_state": dict(dropout_p=0.2, rng_state=torch.tensor([1, 2]), return_lse=True),
}


@pytest.mark.parametrize("attn_type", TYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_opcheck_dense(attn_type, options):
    torch.library.opcheck(strobe.attention.default, qkv(), dict(attn_type=attn_type, **options))


@pytest.mark.parametrize("attn_type", TYPES)
@pytest.mark.parametrize("dropout_p", [0.0, 0.2])
def test_opcheck_varlen(attn_type, dropout_p):
    tensors, lengths = varlen()
    torch.library.opcheck(strobe.attention.default, tensors,
                          dict(attn_type=attn_type, causal=True, dropout_p=dropout_p, **lengths))


@pytest.mark.parametrize("attn_type", TYPES)
@pytest.mark.parametrize("dropout_p", [0.0, 0.2])
def test_opcheck_packed(attn_type, dropout_p):
    options = dict(attn_type=attn_type, dropout_p=dropout_p)
    torch.library.opcheck(strobe.attention_qkvpacked.default, (leaf(2, 6, 8, 8), 4), options)
    torch.library.opcheck(strobe.attention_kvpacked.default, (leaf(2, 6, 4, 8), leaf(2, 7, 4, 8)), options)
    packed = dict(cu_seqlens_q=ints(0, 2, 6), cu_seqlens_k=ints(0, 2, 6), max_seqlen_q=4, max_seqlen_k=4, **options)
    torch.library.opcheck(strobe.attention_qkvpacked.default, (leaf(6, 8, 8), 4), packed)


@pytest.mark.parametrize("attn_type", TYPES)
def test_opcheck_inner(attn_type):
    q, k, v = (t.detach() for t in qkv())
    options = dict(attn_type=attn_type, dropout_p=0.2, return_lse=True, rng_state=torch.tensor([1, 2]))
    torch.library.opcheck(strobe.attention_forward.default, (q, k, v), options)
    out, lse, _ = strobe.attention_forward(q, k, v, **options)
    torch.library.opcheck(strobe.attention_backward.default, (out, lse, q, k, v, out, lse), options)
    packed = torch.cat([q[:, :6], k[:, :6], v[:, :6]], 2)
    out, lse, _ = strobe.attention_forward(q, k[:, :6], v[:, :6], **options)
    torch.library.opcheck(strobe.attention_qkvpacked_backward.default, (out, None, packed, 4, out, lse), options)
    kv = packed[:, :, 4:].contiguous()
    torch.library.opcheck(strobe.attention_kvpacked_backward.default, (out, lse, q, kv, out, lse), options)


# Gradients by finite differences, in double, along random directions.

GRADCHECK_OPTIONS = {
    "plain": {},
    "causal": dict(causal=True),
    "window": dict(window_left=2, window_right=1, softmax_scale=0.7),
    "lengths": dict(causal=True, key_lengths=ints(5, 7), query_lengths=ints(6, 2)),
    "dropout": dict(dropout_p=0.3, rng_state=torch.tensor([3, 4])),
}


def finite(tensors):
    return [torch.where(t.isinf(), 0.0, t) for t in tensors]


@pytest.mark.parametrize("options", GRADCHECK_OPTIONS.values(), ids=GRADCHECK_OPTIONS.keys())
def test_gradcheck_dotscale(options):
    def run(q, k, v):
        return finite(strobe.attention(q, k, v, attn_type="dotscale", return_lse=True, **options))

    assert torch.autograd.gradcheck(run, qkv(dtype=torch.float64), fast_mode=True)


def test_gradcheck_dotscale_varlen():
    tensors, lengths = varlen(torch.float64)

    def run(q, k, v):
        return finite(strobe.attention(q, k, v, attn_type="dotscale", return_lse=True, causal=True, **lengths))

    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)


def test_gradcheck_dotscale_packed():
    assert torch.autograd.gradcheck(lambda t: strobe.attention_qkvpacked(t, 4, attn_type="dotscale")[0],
                                    leaf(2, 5, 8, 8, dtype=torch.float64), fast_mode=True)
    assert torch.autograd.gradcheck(lambda q, kv: strobe.attention_kvpacked(q, kv, attn_type="dotscale")[0],
                                    (leaf(2, 5, 4, 8, dtype=torch.float64), leaf(2, 6, 4, 8, dtype=torch.float64)), fast_mode=True)


# Beside ATen's attention.


def sdpa(q, k, v, causal):
    heads_first = (t.transpose(1, 2) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=causal,
                                                            enable_gqa=True).transpose(1, 2)


def error(found, exact):
    return (found.double() - exact).abs().max().item()


@pytest.mark.parametrize("attn_type", FLASH_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_flash_is_as_exact_as_sdpa(attn_type, dtype, causal):
    inputs = [t.detach().to(dtype).requires_grad_() for t in qkv(nq=200, nk=200, heads_q=4, heads_k=2, dim=64)]
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    grad = torch.randn(2, 200, 4, 64).to(dtype)
    exact = sdpa(*exact_inputs, causal)
    exact_grads = torch.autograd.grad(exact, exact_inputs, grad.double())
    plain = sdpa(*inputs, causal)
    plain_grads = torch.autograd.grad(plain, inputs, grad)
    found = strobe.attention(*inputs, attn_type=attn_type, causal=causal)[0]
    found_grads = torch.autograd.grad(found, inputs, grad)
    assert error(found, exact) <= 2 * error(plain, exact)
    for mine, theirs, truth in zip(found_grads, plain_grads, exact_grads):
        assert error(mine, truth) <= 3 * error(theirs, truth)


# torch.compile


@pytest.mark.parametrize("attn_type", TYPES)
def test_compile(attn_type):
    def step(x, w):
        packed = (x @ w).unflatten(-1, (-1, 8))
        return strobe.attention_qkvpacked(packed, 4, attn_type=attn_type, causal=True)[0].square().sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (5, 9):
        x, w = leaf(2, rows, 16), leaf(16, 64)
        expected = torch.autograd.grad(step(x, w), (x, w))
        for found, wanted in zip(torch.autograd.grad(compiled(x, w), (x, w)), expected):
            torch.testing.assert_close(found, wanted)


# What is not offered, by name.


@pytest.mark.parametrize("attn_type", TYPES)
def test_second_derivatives_and_forward_mode_raise(attn_type):
    q, k, v = qkv()
    out = strobe.attention(q, k, v, attn_type=attn_type)[0]
    grad, = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="strobe::attention: double backward is not offered"):
        grad.sum().backward()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
        with pytest.raises(RuntimeError, match="strobe::attention: forward-mode AD is not offered"):
            strobe.attention(dual, k, v, attn_type=attn_type)


def test_meta_tensors_have_shapes():
    q = torch.empty(2, 5, 4, 8, device="meta")
    out, lse = strobe.attention(q, q, q, return_lse=True)
    assert out.shape == q.shape and lse.shape == (2, 4, 5) and lse.dtype == torch.float32


def test_unknown_type_names_the_nearest():
    q, k, v = qkv()
    with pytest.raises(RuntimeError, match='found "flash_atn"; did you mean "flash_attn"?'):
        strobe.attention(q, k, v, attn_type="flash_atn")
