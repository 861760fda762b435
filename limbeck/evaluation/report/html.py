"""The report for people: one self-contained HTML page and a Markdown file, from plain data.

Everything shown stands in `report.json`, in the answers or in the artifacts' own files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from limbeck.contracts.page_templates import load_template
from limbeck.contracts.registry import FLOORS
from limbeck.env.threads import ThreadsReason
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.floors.methods import Missing, find_method
from limbeck.evaluation.report import charts, number_format
from limbeck.evaluation.report.build import Report
from limbeck.evaluation.report.charts import Bilingual, Number, Point
from limbeck.evaluation.report.lineage import ExpertGapSummary, ExpertLoad, LineageStep
from limbeck.evaluation.report.published_reference import PublishedResult
from limbeck.evaluation.report.rows import ReportRow
from limbeck.evaluation.report.without_teacher import Training
from limbeck.evaluation.tier_routing.measure import MeasuredRouting, Method

FOLDER = Path(__file__).parent
NOT_CURVES = frozenset(
    {
        "step",
        "lr",
        "gradient_norm",
        "tokens",
        "seconds",
        "phase",
        "own_answers",
        "own_answer_tokens",
        "own_ended_ratio",
    }
)
REFERENCE_TITLES = {
    "full": Bilingual("参考·完整", "ref. full"),
    "distilled": Bilingual("参考·蒸馏", "ref. distilled"),
    "quantised": Bilingual("参考·量化", "ref. quantised"),
}
THREAD_REASONS: Mapping[ThreadsReason, Bilingual] = {
    "work too small to share": Bilingual("计算量太小", "work too small to share"),
    "cores are busy": Bilingual("核被占用", "cores are busy"),
    "work is shared": Bilingual("计算量足够分摊", "work is shared"),
}

MISSING_REASONS: Mapping[Missing, Bilingual] = {
    "no training record of this kind": Bilingual(
        "没有此类训练记录", "no training record of this kind"
    ),
    "the question is an image": Bilingual("题目是图像", "the question is an image"),
    "several images in one question": Bilingual("一题有多幅图像", "several images in one question"),
    "too many different answers": Bilingual("不同回答太多", "too many different answers"),
    "one answer only": Bilingual("只有一种回答", "one answer only"),
}
TRAINING_TITLES: Mapping[Training, Bilingual] = {
    "trained without a teacher (labels alone)": Bilingual(
        "未用教师训练（仅用标签）", "trained without a teacher (labels alone)"
    ),
}
ROUTING_METHODS: Mapping[Method, Bilingual] = {
    "router": Bilingual("路由器", "router"),
    "log_prob": Bilingual("草稿对数概率最低者", "least log-probability of the draft"),
    "random": Bilingual("随机", "random"),
}


def render_html(
    report: Report,
    *,
    answers: Mapping[str, Sequence[AnsweredQuestion]],
    steps: Sequence[LineageStep],
) -> str:
    """The page; `answers` holds every model's, in the order of the rows."""
    rows = report.rows
    titles = _titles(report, "specialties")
    teacher = next(row for row in rows if row.name == report.teacher)
    loads = [step.routing for step in steps if step.content_hash == teacher.content_hash]
    load = next((item for item in loads if item), None)
    template = load_template(FOLDER, name="report.html.jinja")
    return template.render(
        **_shared(report),
        report=report,
        rows=rows,
        best=max(rows, key=lambda row: row.memory_ratio * row.speedup_ratio),
        teacher=teacher,
        plots=_plots(report),
        routing_plot=Markup(_routing_curve(report.routing)) if report.routing else None,
        curves=[(step, Markup(_curve(step))) for step in steps if len(step.history) > 1],
        specialties=list(dict.fromkeys(name for row in rows for name in row.specialties)),
        titles=titles,
        load=_describe_load(load, titles) if load else None,
        missed=[(step, _missed(step.missed)) for step in steps if step.missed],
        steps=steps,
        longest_seconds=max([step.seconds for step in steps], default=0.0) or 1.0,
        examples=_examples(answers, headline_tasks=report.headline_tasks),
    )


def render_markdown(report: Report) -> str:
    """The tables of the report, with headings in both languages."""
    template = load_template(FOLDER, name="report.md.jinja", escape_html=False)
    return template.render(report=report, rows=report.rows, **_shared(report))


def _shared(report: Report) -> dict[str, object]:
    """What the page and the tables both name."""
    return {
        "f": number_format,
        "task_titles": _titles(report, "tasks"),
        "reference_titles": REFERENCE_TITLES,
        "thread_reasons": THREAD_REASONS,
        "floor_titles": {name: _floor_title(name) for name in FLOORS},
        "missing_reasons": MISSING_REASONS,
        "training_titles": TRAINING_TITLES,
        "routing_methods": ROUTING_METHODS,
    }


def _floor_title(name: str) -> Bilingual:
    method = find_method(name)
    return Bilingual(method.title_zh, method.title_en)


def _titles(report: Report, kind: str) -> dict[str, Bilingual]:
    """Titles of tasks or specialties by the corpus's pack; others are shown by their key."""
    found = report.titles.get(kind, {})
    return {key: Bilingual(str(value["zh"]), str(value["en"])) for key, value in found.items()}


def _plots(report: Report) -> list[tuple[Bilingual, Markup]]:
    """Quality against bytes and time, as measured and as ratios beside the reference."""
    accuracy = Bilingual("准确率", "accuracy")
    measured: list[tuple[Bilingual, Callable[[ReportRow], Number], Callable[[Number], str]]] = [
        (
            Bilingual("权重字节数", "bytes of weights"),
            lambda row: row.weight_bytes,
            number_format.byte_count,
        ),
        (
            Bilingual("回答用时（中位数）", "time per answer (median)"),
            lambda row: row.latency_seconds.p50,
            number_format.duration,
        ),
    ]
    plots = []
    for title, cost, write in measured:
        points = [
            Point(
                Bilingual(row.name, row.name),
                cost(row),
                row.accuracy,
                row.accuracy_interval.low,
                row.accuracy_interval.high,
                index,
            )
            for index, row in enumerate(report.rows)
        ]
        heading = Bilingual(f"准确率与{title.zh}", f"Accuracy against {title.en}")
        plots.append((heading, _scatter(points, across=title, up=accuracy, write=write)))
    if all(row.kept_interval for row in report.rows):
        plots += _ratio_plots(report)
    return plots


def _ratio_plots(report: Report) -> list[tuple[Bilingual, Markup]]:
    ratios: list[tuple[Callable[[ReportRow | PublishedResult], Number], str, str]] = [
        (lambda row: row.memory_ratio, "权重缩小倍数", "times smaller"),
        (lambda row: row.speedup_ratio, "加速倍数", "times faster"),
    ]
    plots = []
    for ratio, zh, en in ratios:
        points = [
            Point(
                Bilingual(row.name, row.name),
                ratio(row),
                row.kept_ratio,
                row.kept_interval.low,
                row.kept_interval.high,
                index,
            )
            for index, row in enumerate(report.rows)
            if row.kept_ratio is not None and row.kept_interval is not None
        ]
        points += [
            Point(
                REFERENCE_TITLES[name],
                ratio(item),
                item.kept_ratio,
                item.kept_ratio,
                item.kept_ratio,
                0,
                is_reference=True,
            )
            for name, item in report.reference.items()
            if name != "full"
        ]
        heading = Bilingual(f"保留率与{zh}（相对教师）", f"Accuracy kept, {en} than the teacher")
        kept = Bilingual("保留率", "accuracy kept")
        plot = _scatter(
            points, across=Bilingual(zh, en), up=kept, write=lambda value: f"{value:g}x"
        )
        plots.append((heading, plot))
    return plots


def _scatter(
    points: Sequence[Point], *, across: Bilingual, up: Bilingual, write: Callable[[Number], str]
) -> Markup:
    heights = [value for point in points for value in (point.low, point.y, point.high)]
    x = charts.fit_axis([point.x for point in points], title=across, write=write, scale="log")
    y = charts.fit_axis(
        heights, title=up, write=lambda value: number_format.percent(value, digits=0), limits=(0, 2)
    )
    return Markup(charts.scatter(points, x=x, y=y))


def _routing_curve(routing: MeasuredRouting) -> str:
    """Accuracy against the share of questions that go from the smallest tier to the largest."""
    series = {
        name: [
            (place / (len(item.accuracy) - 1), value) for place, value in enumerate(item.accuracy)
        ]
        for name, item in routing.methods.items()
    }
    x = charts.fit_axis(
        [0.0, 1.0],
        title=Bilingual("上送份额", "share that goes up"),
        write=lambda value: number_format.percent(value, digits=0),
        limits=(0, 1),
    )
    y = charts.fit_axis(
        [up for points in series.values() for _, up in points],
        title=Bilingual("准确率", "accuracy"),
        write=number_format.percent,
        limits=(0, 1),
    )
    return charts.lines(series, x=x, y=y)


def _curve(step: LineageStep) -> str:
    """The training curve of one checkpoint: its loss and the parts of it."""
    names = dict.fromkeys(name for point in step.history for name in point.values)
    phases = dict.fromkeys(point.phase for point in step.history)
    series = {}
    for phase in phases:
        for name in [name for name in names if name not in NOT_CURVES]:
            points = [
                (float(point.step), float(value))
                for point in step.history
                if point.phase == phase and (value := point.values.get(name)) is not None
            ]
            if points:
                series[f"{phase} {name}".strip()] = points
    heights = [up for points in series.values() for _, up in points]
    positive = min(heights) > 0 and max(heights) / min(heights) > 20
    x = charts.fit_axis(
        [left for points in series.values() for left, _ in points],
        title=Bilingual("步", "step"),
        write=lambda value: f"{value:,.0f}",
        limits=(0, math.inf),
    )
    y = charts.fit_axis(
        heights,
        title=Bilingual("损失", "loss"),
        write=lambda value: f"{value:.3g}",
        scale="log" if positive else "linear",
    )
    return charts.lines(series, x=x, y=y)


@dataclass(frozen=True)
class _Balance:
    """How even one layer's load is: most loaded over mean, deviation over mean, idle experts."""

    highest_ratio: float
    deviation_ratio: float
    num_idle: int
    num_experts: int


@dataclass(frozen=True)
class _LoadSection:
    """The load of the teacher's experts, per layer and per specialty."""

    layers: Markup
    figures: list[_Balance]
    entropy_ratios: tuple[float, ...]
    skipped_ratio: float | None
    by_specialty: Markup | None


def _describe_load(load: ExpertLoad, titles: Mapping[str, Bilingual]) -> _LoadSection | None:
    """None where nothing was picked."""
    if not any(sum(layer) for layer in load.layers):
        return None
    rows = {str(index): layer for index, layer in enumerate(load.layers)}
    labels = {name: Bilingual(f"第 {i + 1} 层", f"layer {i + 1}") for i, name in enumerate(rows)}
    last = {name: layers[-1] for name, layers in load.by_specialty.items() if layers}
    named = {name: titles.get(name, Bilingual(name, name)) for name in last}
    named[""] = Bilingual("（未分科）", "(no specialty)")
    return _LoadSection(
        layers=Markup(charts.strips(rows, labels=labels)),
        figures=[_balance(layer) for layer in load.layers],
        entropy_ratios=load.entropy_ratios,
        skipped_ratio=load.skipped_ratio,
        by_specialty=Markup(charts.strips(last, labels=named)) if len(last) > 1 else None,
    )


def _missed(found: ExpertGapSummary) -> Markup:
    """How far a student is from its teacher where each expert is the first choice, per layer."""
    rows = {str(number): row for number, row in zip(found.numbers, found.layers, strict=True)}
    labels = {name: Bilingual(f"第 {name} 层", f"layer {name}") for name in rows}
    return Markup(charts.strips(rows, labels=labels))


def _balance(layer: Sequence[Number]) -> _Balance:
    mean = sum(layer) / len(layer) or 1.0
    deviation = math.sqrt(sum((value - mean) ** 2 for value in layer) / len(layer))
    return _Balance(
        highest_ratio=max(layer) / mean,
        deviation_ratio=deviation / mean,
        num_idle=sum(value == 0 for value in layer),
        num_experts=len(layer),
    )


def _examples(
    answers: Mapping[str, Sequence[AnsweredQuestion]], *, headline_tasks: Sequence[str]
) -> list[list[AnsweredQuestion]]:
    """For each headline task: a question all got right, one that divides them, one none got."""
    by_question: dict[tuple[str, str], list[AnsweredQuestion]] = {}
    for answered in answers.values():
        for item in answered:
            by_question.setdefault((item.task, item.id), []).append(item)
    found = []
    for task in headline_tasks:
        groups = [group for (name, _), group in sorted(by_question.items()) if name == task]
        for wanted in ("all", "some", "none"):
            fitting = [group for group in groups if _agreement(group) == wanted]
            found += fitting[len(fitting) // 2 :][:1]
    return found


def _agreement(group: Sequence[AnsweredQuestion]) -> str:
    share = count_correct(group)
    return {0.0: "none", 1.0: "all"}.get(share.value, "some")
