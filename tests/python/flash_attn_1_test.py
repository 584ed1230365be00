"""flash-attn 1's interface under the name flash_attn, and both interfaces side by side as FlashAttentionNMT's two models call them."""

import flash_attn
import pytest
import torch
from flash_attn.bert_padding import index_first_axis, pad_input, unpad_input
from flash_attn.flash_attention import FlashAttention, FlashMHA
from flash_attn.flash_attn_interface import (
    flash_attn_func,
    flash_attn_unpadded_func,
    flash_attn_unpadded_kvpacked_func,
    flash_attn_unpadded_qkvpacked_func,
    flash_attn_unpadded_qkvpacked_split_func,
)
from oracle import attend, check_gradients, visible

import strobe

HEADS, DIM = 4, 32


def uniform(batch, seqlen):
    """FlashAttentionNMT's sequences: all as long as the padded batch."""
    return torch.arange(0, (batch + 1) * seqlen, seqlen, dtype=torch.int32)


def draw(*sizes, dtype):
    return [torch.randn(size, HEADS, DIM, dtype=dtype) for size in sizes]


def by_definition(lengths_q, lengths_k, **options):
    def run(q, k, v):
        outs = []
        for a, b, c in zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k)):
            outs.append(attend(a[None], b[None], c[None], visible(len(a), len(b), **options))[0][0])
        return torch.cat(outs)

    return run


@pytest.mark.parametrize("nq, nk", [(40, 40), (25, 40), (40, 25)])
def test_both_interfaces_of_flashattentionnmt_side_by_side(dtype, nq, nk):
    """[B, N, H, D] causal through flash-attn 1 (top-left) and flash-attn 2 (bottom-right) in one process: equal in
    self-attention, each with its own documented diagonal where there are more keys than queries or fewer.
    """
    q, k, v = (torch.randn(3, n, HEADS, DIM, dtype=dtype) for n in (nq, nk, nk))

    def first(q, k, v):
        out = flash_attn_unpadded_func(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), uniform(3, nq), uniform(3, nk),
                                       nq, nk, 0.0, causal=True)
        return out.unflatten(0, (3, nq))

    def second(q, k, v):
        return flash_attn_func(q, k, v, causal=True)

    def plain(top_left):
        return lambda q, k, v: attend(q, k, v, visible(nq, nk, causal=True, top_left=top_left))[0]

    check_gradients(first, plain(True), plain(True), [q, k, v])
    check_gradients(second, plain(False), plain(False), [q, k, v])
    if nq == nk:
        assert torch.equal(first(q, k, v), second(q, k, v))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths_q, lengths_k", [([5, 17, 1], [5, 17, 1]), ([5, 17, 9], [11, 3, 9]), ([30, 2], [2, 30])])
def test_unpadded(dtype, causal, lengths_q, lengths_k):
    cu_q, cu_k = (torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32) for lengths in (lengths_q, lengths_k))
    inputs = draw(sum(lengths_q), sum(lengths_k), sum(lengths_k), dtype=dtype)
    sequences = (cu_q, cu_k, max(lengths_q), max(lengths_k))
    plain = by_definition(lengths_q, lengths_k, causal=causal, top_left=True)
    check_gradients(lambda q, k, v: flash_attn_unpadded_func(q, k, v, *sequences, 0.0, None, causal), plain, plain, inputs)
    check_gradients(lambda q, k, v: flash_attn_unpadded_kvpacked_func(q, torch.stack([k, v], 1), *sequences, 0.0, None, causal),
                    plain, plain, inputs)
    _, lse, probabilities = flash_attn_unpadded_func(*inputs, *sequences, 0.0, None, causal, return_attn_probs=True)
    assert lse.shape == (len(lengths_q), HEADS, max(lengths_q))
    for b, (q, k) in enumerate(zip(inputs[0].double().split(lengths_q), inputs[1].double().split(lengths_k))):
        _, exact = attend(q[None], k[None], k[None], visible(len(q), len(k), causal, top_left=True))
        torch.testing.assert_close(lse[b, :, : len(q)], exact[0].float(), atol=1e-5, rtol=1e-5)
        assert (lse[b, :, len(q) :] == -torch.inf).all()
    with pytest.raises(strobe.NotOffered, match="attention probabilities are not offered"):
        probabilities.shape


def test_unpadded_tokens_beyond_the_last_sequence_are_zero(dtype):
    cu_q, cu_k = torch.tensor([0, 3], dtype=torch.int32), torch.tensor([0, 4], dtype=torch.int32)
    q, k, v = draw(5, 6, 6, dtype=dtype)
    assert not flash_attn_unpadded_func(q, k, v, cu_q, cu_k, 3, 4, 0.0, causal=True)[3:].any()


def test_unpadded_qkvpacked(dtype):
    lengths = [7, 20]
    cu = torch.tensor([0, 7, 27], dtype=torch.int32)
    plain = by_definition(lengths, lengths, causal=True)
    check_gradients(lambda q, k, v: flash_attn_unpadded_qkvpacked_func(torch.stack([q, k, v], 1), cu, 20, 0.0, causal=True),
                    plain, plain, draw(27, 27, 27, dtype=dtype))
    qkv = torch.randn(27, 3, HEADS, DIM, dtype=dtype)
    assert torch.equal(flash_attn_unpadded_qkvpacked_split_func(qkv, cu, 7, 20, 1, 0.0, causal=True),
                       flash_attn_unpadded_qkvpacked_func(qkv, cu, 20, 0.0, causal=True))


# Lengths of 12: padding on the right, on the left, holes, nothing kept, nothing hidden.
MASKS = torch.tensor([[1] * 7 + [0] * 5, [0] * 4 + [1] * 8, [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0], [0] * 12, [1] * 12], dtype=torch.bool)


@pytest.mark.parametrize("causal", [False, True])
def test_flash_attention_takes_padding_out_wherever_it_stands(dtype, causal):
    qkv = torch.randn(len(MASKS), 12, 3, HEADS, DIM, dtype=dtype)
    module = FlashAttention()

    def plain(qkv):
        out = qkv.new_zeros(len(MASKS), 12, HEADS, DIM)
        for b, kept in enumerate(MASKS):
            q, k, v = qkv[b : b + 1, kept].unbind(2)
            out[b, kept] = attend(q, k, v, visible(q.shape[1], q.shape[1], causal))[0][0]
        return out

    check_gradients(lambda qkv: module(qkv, key_padding_mask=MASKS, causal=causal)[0], plain, plain, [qkv])
    out, weights = module(qkv, key_padding_mask=MASKS, causal=causal)
    assert weights is None and not out[~MASKS].any()
    tokens, indices, cu_seqlens, longest = unpad_input(qkv, MASKS)
    unpadded, _ = module(tokens, causal=causal, cu_seqlens=cu_seqlens, max_s=longest)
    assert torch.equal(pad_input(unpadded, indices, len(MASKS), 12), out)


def test_padding_may_hold_anything(dtype):
    qkv = torch.randn(len(MASKS), 12, 3, HEADS, DIM, dtype=dtype)
    expected = FlashAttention()(qkv, key_padding_mask=MASKS)[0]
    qkv[~MASKS] = torch.nan
    assert torch.equal(FlashAttention()(qkv, key_padding_mask=MASKS)[0], expected)


def test_bert_padding():
    x = torch.randn(len(MASKS), 12, 5)
    tokens, indices, cu_seqlens, longest = unpad_input(x, MASKS.int())
    assert torch.equal(tokens, x[MASKS]) and longest == 12
    assert cu_seqlens.tolist() == [0, 7, 15, 22, 22, 34] and cu_seqlens.dtype == torch.int32
    assert torch.equal(pad_input(tokens, indices, len(MASKS), 12), x * MASKS[..., None])
    assert torch.equal(index_first_axis(x.flatten(0, 1), indices), tokens)


def test_flash_mha_is_multi_head_attention(dtype):
    module, torchs = FlashMHA(128, HEADS, dtype=dtype), torch.nn.MultiheadAttention(128, HEADS, batch_first=True, dtype=torch.float64)
    assert {name: p.shape for name, p in module.named_parameters()} == {
        "Wqkv.weight": (384, 128), "Wqkv.bias": (384,), "out_proj.weight": (128, 128), "out_proj.bias": (128,)}
    torchs.load_state_dict({"in_proj_weight": module.Wqkv.weight, "in_proj_bias": module.Wqkv.bias,
                            "out_proj.weight": module.out_proj.weight, "out_proj.bias": module.out_proj.bias})
    x, kept = torch.randn(2, 30, 128, dtype=dtype), torch.arange(30) < torch.tensor([[12], [30]])

    def run(network, kept_argument):
        return lambda x: network(x, key_padding_mask=kept_argument)[0][kept] if network is module else (
            network(x, x, x, key_padding_mask=kept_argument, need_weights=False)[0][kept])

    same_precision = torch.nn.MultiheadAttention(128, HEADS, batch_first=True, dtype=dtype)
    same_precision.load_state_dict(torchs.state_dict())
    check_gradients(run(module, kept), run(same_precision, ~kept), run(torchs, ~kept), [x])


def test_flash_mha_drops_only_while_training():
    module, x = FlashMHA(64, 2, attention_dropout=0.5, dtype=torch.bfloat16), torch.randn(2, 16, 64, dtype=torch.bfloat16)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_refusals():
    module, x = FlashMHA(64, 2, dtype=torch.bfloat16), torch.randn(2, 16, 64, dtype=torch.bfloat16)
    with pytest.raises(strobe.NotOffered, match="need_weights: expected False"):
        module(x, need_weights=True)
    with pytest.raises(strobe.NotOffered, match="FlashMHA: batch_first: expected True"):
        FlashMHA(64, 2, batch_first=False)
    with pytest.raises(ValueError, match="expected a multiple of 8 up to 128, found 4"):
        FlashMHA(64, 16)
    with pytest.raises(ValueError, match="expected a divisor of embed_dim 64, found 3"):
        FlashMHA(64, 3)
    with pytest.raises(ValueError, match="max_s: expected the longest sequence"):
        FlashAttention()(torch.zeros(4, 3, 2, 32), cu_seqlens=torch.tensor([0, 4], dtype=torch.int32))


def test_top_level_names_are_flash_attn_2s():
    assert flash_attn.flash_attn_func is strobe.flash_attn_func
    assert flash_attn.__version__.startswith("2.")
