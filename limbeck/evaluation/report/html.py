"""The report for people: one self-contained HTML page and a Markdown file, from plain data.

Everything shown stands in `report.json`, in the answers or in the artifacts' own files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.report import charts, number_format
from limbeck.evaluation.report.charts import Bilingual, Point
from limbeck.evaluation.report.lineage import LineageStep

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


def render_html(
    report: Mapping[str, Any],
    *,
    answers: Mapping[str, Sequence[AnsweredQuestion]],
    steps: Sequence[LineageStep],
) -> str:
    """The page; `answers` holds every model's, in the order of the rows."""
    rows = report["rows"]
    titles = _titles(report, "specialties")
    teacher_hash = next(row["content_hash"] for row in rows if row["name"] == report["teacher"])
    routing = next((s.routing for s in steps if s.content_hash == teacher_hash and s.routing), {})
    return (
        _environment(report, escape_html=True)
        .get_template("report.html.jinja")
        .render(
            report=report,
            rows=rows,
            best=max(rows, key=lambda row: row["memory_ratio"] * row["speedup_ratio"]),
            teacher=next(row for row in rows if row["name"] == report["teacher"]),
            plots=_plots(report),
            curves=[(step, Markup(_curve(step))) for step in steps if len(step.history) > 1],
            specialties=list(dict.fromkeys(name for row in rows for name in row["specialties"])),
            titles=titles,
            load=_load(routing, titles),
            missed=[(step, _missed(step.missed)) for step in steps if step.missed],
            steps=steps,
            longest_seconds=max([step.seconds for step in steps], default=0.0) or 1.0,
            examples=_examples(answers, headline_tasks=report["headline_tasks"]),
        )
    )


def render_markdown(report: Mapping[str, Any]) -> str:
    """The tables of the report, with headings in both languages."""
    template = _environment(report, escape_html=False).get_template("report.md.jinja")
    return template.render(report=report, rows=report["rows"])


def _environment(report: Mapping[str, Any], *, escape_html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=escape_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        f=number_format,
        task_titles=_titles(report, "tasks"),
        reference_titles=REFERENCE_TITLES,
    )
    return environment


def _titles(report: Mapping[str, Any], kind: str) -> dict[str, Bilingual]:
    """Titles of tasks or specialties by the corpus's pack; others are shown by their key."""
    found = report.get("titles", {}).get(kind, {})
    return {key: Bilingual(value["zh"], value["en"]) for key, value in found.items()}


def _plots(report: Mapping[str, Any]) -> list[tuple[Bilingual, Markup]]:
    """Quality against bytes and time, as measured and as ratios beside the reference."""
    rows = report["rows"]
    accuracy = Bilingual("准确率", "accuracy")
    measured = [
        (Bilingual("权重字节数", "bytes of weights"), "weight_bytes", number_format.byte_count),
        (
            Bilingual("回答用时（中位数）", "time per answer (median)"),
            "p50",
            number_format.duration,
        ),
    ]
    plots = []
    for title, key, write in measured:
        points = [
            Point(
                Bilingual(row["name"], row["name"]),
                row["latency_seconds"]["p50"] if key == "p50" else row[key],
                row["accuracy"],
                row["accuracy_interval"]["low"],
                row["accuracy_interval"]["high"],
                index,
            )
            for index, row in enumerate(rows)
        ]
        heading = Bilingual(f"准确率与{title.zh}", f"Accuracy against {title.en}")
        plots.append((heading, _scatter(points, across=title, up=accuracy, write=write)))
    if all(row["kept_interval"] for row in rows):
        plots += _ratio_plots(report)
    return plots


def _ratio_plots(report: Mapping[str, Any]) -> list[tuple[Bilingual, Markup]]:
    plots = []
    for key, zh, en in (
        ("memory_ratio", "权重缩小倍数", "times smaller"),
        ("speedup_ratio", "加速倍数", "times faster"),
    ):
        points = [
            Point(
                Bilingual(row["name"], row["name"]),
                row[key],
                row["kept_ratio"],
                row["kept_interval"]["low"],
                row["kept_interval"]["high"],
                index,
            )
            for index, row in enumerate(report["rows"])
        ]
        points += [
            Point(
                REFERENCE_TITLES[name],
                item[key],
                item["kept_ratio"],
                item["kept_ratio"],
                item["kept_ratio"],
                0,
                is_reference=True,
            )
            for name, item in report["reference"].items()
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
    points: Sequence[Point], *, across: Bilingual, up: Bilingual, write: Callable[..., str]
) -> Markup:
    heights = [value for point in points for value in (point.low, point.y, point.high)]
    x = charts.fit_axis([point.x for point in points], title=across, write=write, scale="log")
    y = charts.fit_axis(
        heights, title=up, write=lambda value: number_format.percent(value, digits=0), limits=(0, 2)
    )
    return Markup(charts.scatter(points, x=x, y=y))


def _curve(step: LineageStep) -> str:
    """The training curve of one checkpoint: its loss and the parts of it."""
    known = dict.fromkeys(name for point in step.history for name in point)
    names = [name for name in known if name not in NOT_CURVES]
    phases = list(dict.fromkeys(str(point.get("phase", "")) for point in step.history))
    series = {}
    for phase in phases:
        for name in names:
            points = [
                (float(point["step"]), float(point[name]))
                for point in step.history
                if str(point.get("phase", "")) == phase
                and isinstance(point.get(name), int | float)
                and math.isfinite(point[name])
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


def _load(routing: Mapping[str, Any], titles: Mapping[str, Bilingual]) -> dict[str, Any]:
    """The load of the teacher's experts, per layer and per specialty; empty without experts."""
    layers = routing.get("layers", [])
    if not layers or not any(sum(layer) for layer in layers):
        return {}
    labels = {str(i): Bilingual(f"第 {i + 1} 层", f"layer {i + 1}") for i in range(len(layers))}
    found: dict[str, Any] = {
        "layers": Markup(
            charts.strips({str(i): row for i, row in enumerate(layers)}, labels=labels)
        ),
        "figures": [_balance(layer) for layer in layers],
        "entropy_ratios": routing.get("entropy_ratios", []),
        "skipped_ratio": routing.get("skipped_ratio"),
    }
    by_specialty = {
        name: value[-1] for name, value in routing.get("by_specialty", {}).items() if value
    }
    if len(by_specialty) > 1:
        named = {name: titles.get(name, Bilingual(name, name)) for name in by_specialty}
        named[""] = Bilingual("（未分科）", "(no specialty)")
        found["by_specialty"] = Markup(charts.strips(by_specialty, labels=named))
    return found


def _missed(found: Mapping[str, Any]) -> Markup:
    """How far a student is from its teacher where each expert is the first choice, per layer."""
    rows = {str(number): row for number, row in zip(found["numbers"], found["layers"], strict=True)}
    labels = {name: Bilingual(f"第 {name} 层", f"layer {name}") for name in rows}
    return Markup(charts.strips(rows, labels=labels))


def _balance(layer: Sequence[int | float]) -> dict[str, int | float]:
    """How even one layer's load is: most loaded over mean, deviation over mean, idle experts."""
    mean = sum(layer) / len(layer) or 1.0
    deviation = math.sqrt(sum((value - mean) ** 2 for value in layer) / len(layer))
    return {
        "highest_ratio": max(layer) / mean,
        "deviation_ratio": deviation / mean,
        "num_idle": sum(value == 0 for value in layer),
        "num_experts": len(layer),
    }


def _examples(
    answers: Mapping[str, Sequence[AnsweredQuestion]], *, headline_tasks: Sequence[str]
) -> list[list[AnsweredQuestion]]:
    """For each headline task: a question all got right, one that divides them, one none got."""
    by_question: dict[tuple[str, str], list[AnsweredQuestion]] = {}
    for asked in answers.values():
        for item in asked:
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
