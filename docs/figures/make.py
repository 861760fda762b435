"""Writes the demo's numbers into the READMEs, and draws its chain, from the committed report.

    python docs/figures/make.py

Run it after `benchmarks/results/demo/report.json` was made again; `tests/docs/test_made_pages.py`
compares what it makes with the files.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from limbeck.evaluation.report.build import Report, read_report
from limbeck.evaluation.report.number_format import (
    byte_count,
    counted,
    duration,
    percent,
    percent_range,
    points,
    times,
    times_range,
)
from limbeck.evaluation.report.rows import ReportRow

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / "results" / "demo" / "report.json"
LAST = "bundle"


@dataclass(frozen=True)
class Words:
    """What the tables and the figure say, in one language."""

    page: Path
    figure: Path
    columns: tuple[str, ...]
    made_by: dict[str, str]
    floors: dict[str, str]
    headline: str
    beaten: str
    beaten_in: str
    task_beaten: str
    comma: str
    gain: str
    declined: str
    parameters: str
    right: str
    bars: str


ENGLISH = Words(
    page=ROOT / "README.md",
    figure=ROOT / "docs" / "figures" / "demo.svg",
    columns=(
        "model",
        "made by",
        "parameters",
        "on disk",
        "right (95 %)",
        "one answer",
        "faster (95 %)",
    ),
    made_by={
        "teacher": "trained on every label, 128 experts",
        "teacher_bundle": "the same, exported to ONNX Runtime",
        "student": "distilled, a tenth of the labels",
        "alone": "the same student on the same labels, without a teacher",
        "all_labels": "the same student on ten times the labels, without a teacher",
        "pruned": "a fifth of the channels cut",
        "healed": "distilled again",
        "int8": "trained while rounding",
        "bundle": "exported to ONNX Runtime",
    },
    floors={
        "majority": "*no model: the most frequent answer*",
        "lookup": "*no model: the nearest training question*",
        "entity_lookup": "*no model: the nearest question about the same name*",
        "linear": "*no model: a linear classifier*",
    },
    headline="**{parameters_before} → {parameters_after} parameters, {size_before} → {size_after} "
    "on disk, {faster} faster in ONNX Runtime than the teacher in PyTorch ({faster_range}), "
    "{model} ({model_range}) where both run in ONNX Runtime, "
    "{right} of {count} questions right (teacher {teacher}).**",
    beaten="**Beaten** by a row without a model, which has more questions right: {names}.",
    beaten_in="Task by task, a row without a model beats the bundle in {tasks}.",
    task_beaten="`{task}` ({floor} {best}, bundle {right})",
    comma=", ",
    gain="What the teacher adds to the student: {points} percentage points (95 % interval).",
    declined="The bundle declines {foreign} of {num_foreign} questions of other domains and "
    "languages, and {right} of the answers that it has right.",
    parameters="params",
    right="right",
    bars="bars: size on disk; times: one answer, median, one thread",
)
CHINESE = Words(
    page=ROOT / "README.zh.md",
    figure=ROOT / "docs" / "figures" / "demo.zh.svg",
    columns=("模型", "由来", "参数", "磁盘", "答对（95 %）", "答一题", "加速（95 %）"),
    made_by={
        "teacher": "用全部标签训练，128 个专家",
        "teacher_bundle": "同一教师，导出到 ONNX Runtime",
        "student": "蒸馏，十分之一的标签",
        "alone": "同一学生、同样的标签，无教师",
        "all_labels": "同一学生、十倍的标签，无教师",
        "pruned": "剪去五分之一通道",
        "healed": "再次蒸馏",
        "int8": "量化感知训练",
        "bundle": "导出到 ONNX Runtime",
    },
    floors={
        "majority": "*不用模型：最常见的答案*",
        "lookup": "*不用模型：最相近的训练问题*",
        "entity_lookup": "*不用模型：同一名称下最相近的训练问题*",
        "linear": "*不用模型：线性分类器*",
    },
    headline="**参数 {parameters_before} → {parameters_after}，磁盘 {size_before} → {size_after}，"
    "用 ONNX Runtime 比 PyTorch 中的教师快 {faster}（{faster_range}），"
    "同在 ONNX Runtime 里 {model}（{model_range}），"
    "{count} 题答对 {right}（教师 {teacher}）。**",
    beaten="**不敌底线**（答对的题少于不用模型的做法）：{names}。",
    beaten_in="分任务看，部署包不敌不用模型的做法：{tasks}。",
    task_beaten="`{task}`（{floor} {best}，部署包 {right}）",
    comma="、",
    gain="教师给学生带来的准确率之差：{points} 个百分点（95 % 区间）。",
    declined="部署包对 {num_foreign} 道其他领域或语言的问题，{foreign} 答“不知道”；"
    "本来答对的题，{right} 被误拒。",
    parameters="参数",
    right="答对",
    bars="条形：磁盘大小；时间：单线程答一题的中位数",
)


def make_files() -> dict[Path, str]:
    """The two READMEs with the demo's numbers, and the two figures."""
    report = read_report(REPORT)
    made = {}
    for words in (ENGLISH, CHINESE):
        text = words.page.read_text(encoding="utf-8")
        text = _put(text, "headline", _make_headline(report, words))
        made[words.page] = _put(text, "table", "\n".join(_make_table(report, words)))
        made[words.figure] = _draw(report, words)
    return made


def _put(text: str, name: str, content: str) -> str:
    """The text with the content between the marks of that name."""
    start, end = f"<!-- demo {name}: docs/figures/make.py -->", f"<!-- end of demo {name} -->"
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{start}\n{content}\n{end}", text, flags=re.DOTALL)


def _find(report: Report, name: str) -> ReportRow:
    return next(row for row in report.rows if row.name == name)


def _make_headline(report: Report, words: Words) -> str:
    first, last = _find(report, report.teacher), _find(report, LAST)
    found = next(item for item in report.in_runtimes if item.model == LAST)
    return words.headline.format(
        parameters_before=counted(first.parameters),
        parameters_after=counted(last.parameters),
        size_before=byte_count(first.size_bytes),
        size_after=byte_count(last.size_bytes),
        faster=times(last.speedup_ratio),
        faster_range=times_range(last.speedup_interval),
        model=times(found.speedup),
        model_range=times_range(found),
        right=percent(last.accuracy),
        count=f"{last.accuracy_interval.count:,}",
        teacher=percent(first.accuracy),
    )


def _make_table(report: Report, words: Words) -> Iterator[str]:
    yield f"| {' | '.join(words.columns)} |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for row in report.rows:
        cells = (
            row.name,
            words.made_by.get(row.name, ""),
            counted(row.parameters),
            byte_count(row.size_bytes),
            f"{percent(row.accuracy)} ({percent_range(row.accuracy_interval)})"
            + (" ▼" if row.beaten_by else ""),
            duration(row.latency_seconds.p50),
            times(row.speedup_ratio)
            + ("" if row.name == report.teacher else f" ({times_range(row.speedup_interval)})"),
        )
        yield f"| {' | '.join(cells)} |"
    for floor in report.floors:
        if floor.accuracy is not None:
            shown = f"{percent(floor.accuracy)} ({percent_range(floor.accuracy_interval)})"
            yield f"| {floor.name} | {words.floors.get(floor.name, '')} | | | {shown} | | |"
    yield from _make_notes(report, words)


def _make_notes(report: Report, words: Words) -> Iterator[str]:
    if beaten := [row.name for row in report.rows if row.beaten_by]:
        yield ""
        yield "▼ " + words.beaten.format(names=", ".join(beaten))
    last = _find(report, LAST)
    if last.beaten_in:
        yield ""
        yield words.beaten_in.format(
            tasks=words.comma.join(_name_beaten(report, task, words) for task in last.beaten_in)
        )
    for gain in report.teacher_gains:
        yield ""
        yield words.gain.format(points=points(gain))
    if declined := last.declined:
        yield ""
        yield words.declined.format(
            foreign=percent(declined.foreign.value),
            num_foreign=declined.foreign.count,
            right=percent(declined.right.value),
        )


def _name_beaten(report: Report, task: str, words: Words) -> str:
    """A task with its best floor's score and the bundle's."""
    scores = {floor.name: floor.tasks[task].value for floor in report.floors if task in floor.tasks}
    best = max(scores, key=lambda name: scores[name])
    right = _find(report, LAST).tasks[task].value
    return words.task_beaten.format(
        task=task, floor=best, best=percent(scores[best]), right=percent(right)
    )


STEPS = ("teacher", "student", "pruned", "healed", "int8", "bundle")
WIDTH, HEIGHT, BOX, GAP, TOP, TALL = 1040, 220, 122, 56, 36, 124
STYLE = (
    "text{font-family:-apple-system,Segoe UI,Helvetica,Noto Sans CJK SC,sans-serif;fill:#1f2933}"
    ".name{font-size:17px;font-weight:600}.line{font-size:13px}.verb{font-size:12px;fill:#52606d}"
    ".bar{fill:#2f7f79}.box{fill:#f3f7f7;stroke:#9fb8b6}.edge{stroke:#52606d;stroke-width:1.5}"
)
VERBS = ("distill", "prune", "distill", "quantize", "export")


def _draw(report: Report, words: Words) -> str:
    """The chain: a box for each model, with a bar as wide as its size on disk."""
    rows = [_find(report, name) for name in STEPS]
    left = (WIDTH - len(rows) * BOX - (len(rows) - 1) * GAP) / 2
    largest = max(row.size_bytes for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(' → '.join(STEPS))}</title><style>{STYLE}</style>",
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#52606d"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
    ]
    for index, row in enumerate(rows):
        x = left + index * (BOX + GAP)
        parts += _draw_box(row, x=x, share=row.size_bytes / largest, words=words)
        if index:
            parts.append(_draw_arrow(VERBS[index - 1], x=x))
    parts.append(
        f'<text class="verb" x="{left:g}" y="{TOP + TALL + 42}">{escape(words.bars)}</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _draw_box(row: ReportRow, *, x: float, share: float, words: Words) -> Sequence[str]:
    lines = (
        f"{counted(row.parameters)} {words.parameters}",
        byte_count(row.size_bytes),
        f"{percent(row.accuracy)} {words.right}",
        duration(row.latency_seconds.p50),
    )
    text = "".join(
        f'<text class="line" x="{x + 10:g}" y="{TOP + 46 + 20 * index}">{escape(line)}</text>'
        for index, line in enumerate(lines)
    )
    return (
        f'<rect class="box" x="{x:g}" y="{TOP}" width="{BOX}" height="{TALL}" rx="6"/>',
        f'<text class="name" x="{x + 10:g}" y="{TOP + 24}">{row.name}</text>{text}',
        f'<rect class="bar" x="{x:g}" y="{TOP + TALL + 10}" height="10" rx="2" '
        f'width="{max(2.0, BOX * share):.1f}"/>',
    )


def _draw_arrow(verb: str, *, x: float) -> str:
    middle = TOP + TALL / 2
    return (
        f'<line class="edge" x1="{x - GAP + 3}" y1="{middle:g}" x2="{x - 3:g}" y2="{middle:g}" '
        f'marker-end="url(#tip)"/><text class="verb" x="{x - GAP / 2:g}" y="{middle - 10:g}" '
        f'text-anchor="middle">{verb}</text>'
    )


def main() -> None:
    """Write the files."""
    for path, text in make_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
