"""What attention adds to a model's matrices: arithmetic, cached numbers, widths.

Read from the config, for no parameter shows it.
"""

from collections.abc import Iterator

from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig


def find_number(config: SizedConfig, *names: str) -> int:
    """The first of these fields of a transformers config that holds a number above 0; 0 if none.

    Architectures differ in their fields, so a missing one is no fault.
    """
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


def attention_flops(config: SizedConfig, *, attended: float) -> float:
    """Scores and weighted sums of one token that attends to so many, over all layers."""
    windows = list(_attention_layers(config))
    if not windows:
        return 0.0
    tokens = sum(min(attended, window) if window else attended for window in windows)
    return 2.0 * tokens * config.get_text_config().num_attention_heads * sum(_head_widths(config))


def count_cached(config: SizedConfig) -> int:
    """Numbers of the keys and values of one token, over all layers."""
    layers = sum(1 for _ in _attention_layers(config))
    return layers * _num_key_value_heads(config) * sum(_head_widths(config)) if layers else 0


def attention_widths(config: SizedConfig) -> tuple[int, int]:
    """Numbers of one token's queries and keys, and of its values and what comes out; all layers."""
    layers = sum(1 for _ in _attention_layers(config))
    if not layers:
        return 0, 0
    heads = config.get_text_config().num_attention_heads + _num_key_value_heads(config)
    score, value = _head_widths(config)
    return layers * heads * score, layers * heads * value


def _num_key_value_heads(config: SizedConfig) -> int:
    text = config.get_text_config()
    return find_number(text, "num_key_value_heads") or text.num_attention_heads


def _attention_layers(config: SizedConfig) -> Iterator[int]:
    """The window of each layer that attends, 0 for an unlimited one."""
    text = config.get_text_config()
    if not find_number(text, "num_attention_heads"):
        return
    window = find_number(text, "sliding_window")
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        yield from (window for _ in range(text.num_hidden_layers))
        return
    for kind in kinds:
        if kind == "sliding_attention":
            yield window
        elif "attention" in kind and "linear" not in kind:
            yield 0


def _head_widths(config: SizedConfig) -> tuple[int, int]:
    """Numbers in one query or key, and in one value."""
    text = config.get_text_config()
    rotary = find_number(text, "qk_rope_head_dim")
    if rotary and find_number(text, "qk_nope_head_dim"):
        assert not isinstance(text, DecoderSizes)
        return text.qk_nope_head_dim + rotary, text.v_head_dim
    width = find_number(text, "head_dim") or text.hidden_size // text.num_attention_heads
    return width, width
