"""A judge's result as lines to read."""

from limbeck.evaluation.report.number_format import percent
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
        f"win rate of {first}, a tie being half a win: {percent(rate.value)} "
        f"({percent(rate.low)} to {percent(rate.high)})",
    ]
    if bias.count:
        lines.append(
            f"position bias: {percent(bias.value)} ({percent(bias.low)} to "
            f"{percent(bias.high)}) of {bias.count:,} pairs change with the order; the first "
            f"answer is preferred in {percent(result.prefers_first_ratio)} of verdicts that are "
            "no tie"
        )
    if result.num_unreadable:
        lines.append(f"without a verdict, and counted nowhere: {result.num_unreadable:,}")
    return lines
