"""attn_implementation="strobe" for transformers: attention that skips padding, through transformers' AttentionInterface.

transformers calls mask() once a forward pass and attend() in every layer. What goes between them is None (nothing is hidden),
the lengths [B] int32 of a batch that is padded on the right, or [B, Nk] bool, true where a key is kept, for any other padding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._attention import attention
from .errors import NotOffered, refuse
from .packing import Packing

NAME = "strobe"
_NOT_OFFERED = {
    "softcap": "softcap",
    "s_aux": "attention sinks",
    "position_bias": "a position bias",
    "head_mask": "a head mask",
    "cu_seq_lens_q": "several sequences in one row",
}
# transformers' own mask functions that attend() expresses, by qualified name.
_EXPRESSED = ("causal_mask_function", "bidirectional_mask_function", "sliding_window_overlay.<locals>.inner_mask")
_BIDIRECTIONAL = "bidirectional_mask_function"


def register() -> None:
    """Adds attn_implementation="strobe" to transformers (5 or later); safe to repeat.

    Raises:
        ImportError: where transformers is not installed or too old.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        raise ImportError(f"strobe.register: expected transformers 5 or later, found none that fits: {error}") from error
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)


def _check_mask_function(function: Callable[..., Any]) -> None:
    """Refuses masks that lengths, causality and a window do not express: packed sequences, chunks, blocks, a model's own."""
    parts = [function]
    if function.__qualname__ == "and_masks.<locals>.and_mask":
        parts = [part for cell in function.__closure__ or () for part in cell.cell_contents]
    for name in [part.__qualname__ for part in parts]:
        if name not in _EXPRESSED:
            raise NotOffered('attn_implementation="strobe": mask: expected padding, causality and a causal sliding window, '
                             f"found {name.split('.')[0]}")


def _assert_one_sequence_a_row(function: Callable[..., Any], batch_size: int, rows: Tensor) -> None:
    """The same while torch.compile traces, which shows no names and adds packed sequences to every mask: where a token does not see
    the one before it, the compiled program stops.
    """
    batch = torch.arange(batch_size, device=rows.device)[:, None]
    seen = function(batch, batch.new_zeros(()), rows[None, 1:], rows[None, :-1])
    torch._assert_async(seen.all(), 'attn_implementation="strobe": mask: expected one sequence a row, found several')


def mask(batch_size: int, kv_length: int, mask_function: Callable[..., Any], cache_position: Tensor | None = None,
         q_length: int = 0, q_offset: int | Tensor = 0, kv_offset: int | Tensor = 0,
         attention_mask: Tensor | None = None, device: torch.device | None = None, **_: Any) -> Tensor | None:
    """What attend() is given for the mask that transformers describes; attention_mask is [B, tokens so far] bool."""
    if cache_position is not None:  # transformers before 5.4
        q_length, q_offset = cache_position.shape[0], cache_position[0]
    device = _device(attention_mask, q_offset, device)
    if torch.compiler.is_compiling():
        _assert_one_sequence_a_row(mask_function, batch_size, torch.arange(q_length, device=device) + q_offset)
    else:
        _check_mask_function(mask_function)
    if kv_length == q_length and attention_mask is None:
        return None
    keys = torch.arange(kv_length, device=device) + kv_offset
    kept = (keys < q_offset + q_length).expand(batch_size, -1)  # a preallocated cache is longer than what it holds
    if attention_mask is not None:
        shown = torch.nn.functional.pad(attention_mask.bool(), (0, max(0, kv_length - attention_mask.shape[1])))
        kept = kept & shown.index_select(1, keys.clamp(max=shown.shape[1] - 1))
    if torch.compiler.is_compiling():  # what follows looks at numbers
        return kept
    if kept.all():
        return None
    lengths = kept.sum(1, dtype=torch.int32)
    padded_right = bool((kept == (keys - kv_offset < lengths[:, None])).all())
    if kv_length == q_length:
        return lengths if padded_right else kept
    newest = q_offset + q_length - 1 - kv_offset
    if mask_function.__qualname__ != _BIDIRECTIONAL and not kept[:, newest].all():
        raise NotOffered('attn_implementation="strobe": attention_mask: expected padding on the left where a cache holds earlier '
                         "tokens, found it on the right of the newest")
    return kept


def _device(attention_mask: Tensor | None, q_offset: int | Tensor, device: torch.device | None) -> torch.device | None:
    for t in (attention_mask, q_offset):
        if isinstance(t, Tensor):
            return t.device
    return device


def _is_causal(module: torch.nn.Module, is_causal: bool | None) -> bool:
    if is_causal is not None:
        return is_causal
    found = getattr(module, "is_causal", None)
    if found is None and hasattr(module, "layer_idx"):  # a layer with a cache: guessing wrong would show it the future
        raise NotOffered(f'attn_implementation="strobe": {type(module).__name__}.is_causal: expected True or False, found none')
    return bool(found)


def _kept_keys(attention_mask: Tensor) -> Tensor:
    """[B, Nk] bool from the additive or bool [B, 1, 1, Nk] that some encoders make themselves."""
    if attention_mask.dim() != 4 or attention_mask.shape[1:3] != (1, 1):
        raise NotOffered('attn_implementation="strobe": attention_mask: expected None, [B] lengths, [B, Nk] or [B, 1, 1, Nk], '
                         f"found {list(attention_mask.shape)}")
    kept = attention_mask[:, 0, 0]
    return kept if kept.dtype == torch.bool else kept == 0


def attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
           dropout: float = 0.0, scaling: float | None = None, sliding_window: int | None = None,
           is_causal: bool | None = None, output_attentions: bool | None = None, **kwargs: Any) -> tuple[Tensor, None]:
    """One layer's attention: query [B, Hq, Nq, D], key and value [B, Hk, Nk, D] -> ([B, Nq, Hq, D], None)."""
    function = 'attn_implementation="strobe"'
    for name, feature in _NOT_OFFERED.items():
        refuse(function, name, feature, kwargs.get(name))
    if output_attentions:
        raise NotOffered(f"{function}: output_attentions: expected False (attention probabilities are not offered), found True")
    causal = _is_causal(module, is_causal)
    if sliding_window is not None and not causal:
        raise NotOffered(f"{function}: sliding_window: expected None in a layer that is not causal, found {sliding_window}")
    options: dict[str, Any] = dict(dropout_p=dropout, softmax_scale=scaling, causal=causal,
                                   window_left=-1 if sliding_window is None else sliding_window - 1)
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    if attention_mask is None:
        return attention(query, key, value, **options), None
    if attention_mask.dim() == 1:
        rows = attention_mask if query.shape[1] == key.shape[1] else None
        return attention(query, key, value, key_lengths=attention_mask, query_lengths=rows, **options), None
    kept = attention_mask if attention_mask.dim() == 2 else _kept_keys(attention_mask)
    return _attend_packed(query, key, value, kept, options), None


def _attend_packed(query: Tensor, key: Tensor, value: Tensor, kept: Tensor, options: dict[str, Any]) -> Tensor:
    """Through sequences without padding, so that hidden keys may stand anywhere."""
    keys = Packing.of(kept)
    same = query.shape[1] == key.shape[1]
    # Rows against a longer past: every row is one of the newest tokens, and the diagonal ends at the last kept key.
    rows = keys if same else Packing.of(kept.new_ones(query.shape[:2]))
    out = attention(rows.pack(query), keys.pack(key), keys.pack(value), cu_seqlens_q=rows.cu_seqlens,
                    cu_seqlens_k=keys.cu_seqlens, max_seqlen_q=rows.max_seqlen, max_seqlen_k=keys.max_seqlen, **options)
    return rows.unpack(out)
