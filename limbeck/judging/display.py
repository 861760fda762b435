"""A judge's result as lines to read."""

from limbeck.judging.result import JudgeResult


def describe(result: JudgeResult) -> list[str]:
    """The result, and what it has to be read with."""
    first, second = result.models
    rate, bias = result.win_rate, result.position_bias
    lines = [
        f"{first} against {second}, judged by {result.judge} on {result.num_pairs:,} pairs, each "
        "in both orders",
        f"{first} wins {result.wins[0]:,}, {second} wins {result.wins[1]:,}, ties {result.ties:,}"
        + (f" ({result.num_same:,} with the same text)" if result.num_same else ""),
        f"win rate of {first}, a tie being half a win: {_percent(rate.value)} "
        f"({_percent(rate.low)} to {_percent(rate.high)})",
    ]
    if bias.count:
        lines.append(
            f"position bias: {_percent(bias.value)} ({_percent(bias.low)} to "
            f"{_percent(bias.high)}) of {bias.count:,} pairs change with the order; the first "
            f"answer is preferred in {_percent(result.prefers_first_ratio)} of verdicts that are "
            "no tie"
        )
    if result.num_unreadable:
        lines.append(f"without a verdict, and counted nowhere: {result.num_unreadable:,}")
    return lines


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"
