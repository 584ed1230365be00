"""strobe.attention and the rest under autocast, torch.compile, CUDA graphs and gradient checkpointing."""

import re
from pathlib import Path

import pytest
import torch
from conftest import DEVICE, DTYPES
from flash_attn.flash_attention import FlashMHA
from oracle import attend, check_gradients, visible

import strobe

BF16 = torch.bfloat16


def qkv(n=40, heads_k=2, dim=32, dtype=DTYPES[0], **options):
    return [torch.randn(2, n, h, dim, dtype=dtype, **options) for h in (4, heads_k, heads_k)]


@pytest.mark.parametrize("attn_type", ["dotscale", "flash_attn", "imp_flash_attn"])
def test_attention_values(dtype, attn_type):
    lengths = torch.tensor([40, 13], dtype=torch.int32)
    hidden = torch.arange(40) < lengths[:, None, None, None]
    seen = visible(40, 40, window=(11, 3)) & hidden

    def plain(q, k, v):
        return attend(q, k, v, seen, scale=0.3)[0]

    check_gradients(lambda q, k, v: strobe.attention(q, k, v, attn_type=attn_type, softmax_scale=0.3, window_left=11,
                                                     window_right=3, key_lengths=lengths), plain, plain, qkv(dtype=dtype))


def test_the_lse_has_a_gradient():
    inputs = [t.requires_grad_() for t in qkv(dtype=DTYPES[-1])]
    out, lse = strobe.attention(*inputs, return_lse=True)
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    scores = exact_inputs[0].transpose(1, 2) @ exact_inputs[1].repeat_interleave(2, 2).transpose(1, 2).transpose(2, 3)
    exact = (scores * 32**-0.5).logsumexp(-1)
    (found,), (wanted,) = torch.autograd.grad(lse.sum(), inputs[0]), torch.autograd.grad(exact.sum(), exact_inputs[0])
    # A weighted mean of keys: its bf16 rounding and that of the weights
    assert (found.double() - wanted).abs().max() <= 2 * torch.finfo(BF16).eps * inputs[1].abs().max() * 32**-0.5


@pytest.mark.parametrize("function", ["attention", "flash_attn_func", "FlashMHA"])
def test_autocast_casts(function):
    q, k, v = (t.float().requires_grad_() for t in qkv(heads_k=4))
    module = FlashMHA(128, 4)
    with torch.autocast(DEVICE, dtype=BF16):
        if function == "FlashMHA":
            out = module(q.flatten(2))[0]
        else:
            out = getattr(strobe, function)(q, k, v)
            assert torch.equal(out, getattr(strobe, function)(*(t.to(BF16) for t in (q, k, v))))
    assert out.dtype == BF16
    out.sum().backward()
    assert q.grad.dtype == torch.float32


def calls():  # what a program does with the functions, as functions of q, k and v
    cu = torch.tensor([0, 11, 40], dtype=torch.int32)
    kept = torch.rand(2, 40) > 0.4
    module = FlashMHA(64, 2, dtype=DTYPES[-1])

    def varlen(q, k, v):
        return strobe.flash_attn_varlen_func(q[0], k[0], v[0], cu, cu, 29, 29, causal=True)

    return {
        "dense": lambda q, k, v: strobe.flash_attn_func(q, k, v, causal=True),
        "padded_head_dim": lambda q, k, v: strobe.flash_attn_func(q[..., :19], k[..., :19], v[..., :19]),
        "with_lse": lambda q, k, v: strobe.flash_attn_func(q, k, v, return_attn_probs=True)[1],
        "varlen": varlen,
        "attention": lambda q, k, v: strobe.attention(q, k, v, window_left=5),
        "flash_mha": lambda q, k, v: module(q[:, :, :2].flatten(2), key_padding_mask=kept)[0],
    }


@pytest.mark.parametrize("name", calls())
def test_compiles_to_one_graph(name):
    call = calls()[name]
    inputs = [t.requires_grad_() for t in qkv(dtype=DTYPES[-1])]
    compiled = torch.compile(call, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")
    out, expected = compiled(*inputs), call(*inputs)
    torch.testing.assert_close(out, expected)
    used = [t for t, g in zip(inputs, torch.autograd.grad(expected.sum(), inputs, allow_unused=True, retain_graph=True)) if g is not None]
    for found, wanted in zip(torch.autograd.grad(out.sum(), used), torch.autograd.grad(expected.sum(), used)):
        torch.testing.assert_close(found, wanted)


@pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU")
@pytest.mark.parametrize("name", calls())
def test_cuda_graphs_replay(name):
    call = calls()[name]
    inputs = [t.requires_grad_() for t in qkv(dtype=DTYPES[-1])]
    grads = [torch.zeros_like(t) for t in inputs]

    def step():
        for t in inputs:
            t.grad = None
        out = call(*inputs)
        out.float().square().sum().backward()
        for grad, t in zip(grads, inputs):
            grad.copy_(t.grad) if t.grad is not None else grad.zero_()
        return out

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for t in inputs:
            t.copy_(torch.randn_like(t))
    graph.replay()
    found, found_grads = captured.clone(), [g.clone() for g in grads]
    torch.testing.assert_close(found, step())
    for mine, wanted in zip(found_grads, grads):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU")
def test_dropout_differs_between_replays():
    q, k, v = qkv(dtype=DTYPES[-1])
    graph = torch.cuda.CUDAGraph()
    strobe.flash_attn_func(q, k, v, dropout_p=0.5)
    with torch.cuda.graph(graph):
        out = strobe.flash_attn_func(q, k, v, dropout_p=0.5)
    graph.replay()
    first = out.clone()
    graph.replay()
    assert not torch.equal(first, out)


def test_checkpointing_draws_the_same_dropout():
    inputs = [t.requires_grad_() for t in qkv(dtype=DTYPES[-1])]

    def run(*inputs):
        return strobe.flash_attn_func(*inputs, dropout_p=0.3)

    torch.manual_seed(1)
    expected = torch.autograd.grad(run(*inputs).sum(), inputs)
    torch.manual_seed(1)
    found = torch.autograd.grad(torch.utils.checkpoint.checkpoint(run, *inputs, use_reentrant=False).sum(), inputs)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)


def test_errors_name_the_argument():
    q, k, v = qkv(dtype=BF16)
    with pytest.raises(RuntimeError, match="k: expected q's head_dim 32 in dimension -1"):
        strobe.attention(q, k[..., :16], v)
    with pytest.raises(RuntimeError, match="cu_seqlens_k: expected both cu_seqlens or neither"):
        strobe.attention(q, k, v, cu_seqlens_q=torch.zeros(3, dtype=torch.int32))
    with pytest.raises(RuntimeError, match="window_left: expected -1 or more, found -3"):
        strobe.flash_attn_func(q, k, v, window_size=(-3, 0))


def test_one_version_everywhere():
    root = Path(__file__).parents[2]
    if not (root / "CMakeLists.txt").exists():
        pytest.skip("not in a checkout")
    version = re.search(r"project\(strobe VERSION (\S+)", (root / "CMakeLists.txt").read_text())[1]
    assert strobe.__version__ == version
    for project in ("pyproject.toml", "drop_in/pyproject.toml"):
        assert f'version = "{version}"' in (root / "python" / project).read_text()
    assert f'"strobe=={version}"' in (root / "python/drop_in/pyproject.toml").read_text()
    torch_version = re.search(r"^torch==(\d+\.\d+)", (root / "requirements/constraints.txt").read_text(), re.M)[1]
    assert f'"torch=={torch_version}.*"' in (root / "python/pyproject.toml").read_text()
