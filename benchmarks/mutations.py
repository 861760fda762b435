"""Faults put into the code one at a time: do the tests notice?

Each mutant replaces one piece of text in a copy of the checkout and runs the tests that concern it,
with the first failure as its end. One that survives is a hole in the tests. The tests are those of
the mutated module's own folder; the whole suite would kill more. Left out: mutants that change
nothing a user could meet.

    python benchmarks/mutations.py --json benchmarks/results/mutations.json
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from reporting import environment, make_parser, report

HERE = Path(__file__).parents[1]
SECONDS = 600
QUICK = 5


@dataclass(frozen=True)
class Mutant:
    """One fault: where, what is written instead of what, and the tests that should fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "clipping never acts",
        "training/optimizer_step.py",
        "factor * min(1.0, self.max_grad_norm / max(norm, 1e-12))",
        "factor",
        "tests/training/test_optimizer_step.py",
    ),
    Mutant(
        "gradients are halved",
        "training/optimizer_step.py",
        "factor * min(1.0, self.max_grad_norm / max(norm, 1e-12))",
        "0.5 * factor * min(1.0, self.max_grad_norm / max(norm, 1e-12))",
        "tests/training/test_optimizer_step.py",
    ),
    Mutant(
        "norms decay",
        "training/lr_schedule.py",
        'if item.ndim < 2], "weight_decay": 0.0}',
        'if item.ndim < 2], "weight_decay": weight_decay}',
        "tests/training/test_optimizer_step.py",
    ),
    Mutant(
        "the balance loss counts padding",
        "objectives/load_balancing.py",
        "num_experts * (shares * probabilities[tokens].mean(dim=0)).sum()",
        "num_experts * (shares * probabilities.mean(dim=0)).sum()",
        "tests/objectives",
    ),
    Mutant(
        "load shares count padding",
        "objectives/load_balancing.py",
        "torch.bincount(picked[tokens].reshape(-1), minlength=num_experts)",
        "torch.bincount(picked.reshape(-1), minlength=num_experts)",
        "tests/objectives",
    ),
    Mutant(
        "the z-loss counts padding",
        "objectives/load_balancing.py",
        "logits[tokens].logsumexp(dim=-1)",
        "logits.logsumexp(dim=-1)",
        "tests/objectives",
    ),
    Mutant(
        "near duplicates need no similarity",
        "data/filters/dedup.py",
        "if jaccard(values, self._shingles[candidate]) >= self._config.min_similarity_ratio:",
        "if True:",
        "tests/data/filters",
    ),
    Mutant(
        "prepare checks no leaks",
        "stages/prepare.py",
        "check_leaks(train, held_out=held_out)",
        "pass",
        "tests/stages/test_prepare.py",
    ),
    Mutant(
        "a count instead of a sum divides the loss",
        "training/optimizer_step.py",
        "means = {name: value / count for name, value in totals.items()}",
        "means = {name: value / len(batches) for name, value in totals.items()}",
        "tests/training",
    ),
    Mutant(
        "warm-up starts at the peak",
        "training/lr_schedule.py",
        "return peak_lr * (step + 1) / warmup_steps",
        "return peak_lr",
        "tests/training",
    ),
    Mutant(
        "the rate falls to nothing",
        "training/lr_schedule.py",
        "peak_lr * (final_ratio + (1 - final_ratio) * falling)",
        "peak_lr * falling",
        "tests/training",
    ),
    Mutant(
        "forward KL is reverse KL",
        "distillation/losses/divergences.py",
        "return teacher.exp() * (teacher - student)",
        "return student.exp() * (student - teacher)",
        "tests/distillation/losses",
    ),
    Mutant(
        "total variation is doubled",
        "distillation/losses/divergences.py",
        "return 0.5 * (teacher.exp() - student.exp()).abs()",
        "return (teacher.exp() - student.exp()).abs()",
        "tests/distillation/losses",
    ),
    Mutant(
        "the mixture swaps its weights",
        "distillation/losses/divergences.py",
        "teacher + math.log(teacher_weight), student + math.log(1.0 - teacher_weight)",
        "teacher + math.log(1.0 - teacher_weight), student + math.log(teacher_weight)",
        "tests/distillation/losses",
    ),
    Mutant(
        "the adaptive head is the tail",
        "distillation/losses/divergences.py",
        "ordered.cumsum(dim=-1) - ordered < head_ratio",
        "ordered.cumsum(dim=-1) - ordered >= head_ratio",
        "tests/distillation/losses",
    ),
    Mutant(
        "groups are split by row",
        "data/corpus/splits.py",
        'f"{seed}:{_find(roots, record.group)}"',
        'f"{seed}:{record.id}"',
        "tests/data/corpus",
    ),
    Mutant(
        "groups with one question stay apart",
        "data/corpus/splits.py",
        "parents[high] = low",
        "pass",
        "tests/data/corpus tests/invariants/test_leaks.py",
    ),
    Mutant(
        "a last turn is compared with no question",
        "contracts/leaks.py",
        'pairs = [("text", text), (kind, last), ("group", item.group)]',
        'pairs = [("text", text), ("group", item.group)]',
        "tests/contracts/test_leaks.py",
    ),
    Mutant(
        "one image in two splits is no leak",
        "contracts/leaks.py",
        'pairs += [("image", image.rsplit("/", 1)[-1]) for image in item.images]',
        "pass",
        "tests/contracts/test_leaks.py",
    ),
    Mutant(
        "int8 has 128 levels",
        "quantization/formats/rounding.py",
        "LEVELS = 127\n",
        "LEVELS = 128\n",
        "tests/quantization",
    ),
    Mutant(
        "long rows are multiplied in part",
        "quantization/formats/rounding.py",
        "for start in range(0, left.shape[1], EXACT_TERMS):",
        "for start in range(0, 1, EXACT_TERMS):",
        "tests/quantization",
    ),
    Mutant(
        "activations keep their sign bit only",
        "quantization/formats/rounding.py",
        "return torch.round(x.float() / scales)",
        "return torch.trunc(x.float() / scales)",
        "tests/quantization",
    ),
    Mutant(
        "formats: rounded blocks have no gradient",
        "quantization/formats/block_rounding.py",
        "return pass_gradient(x, rounded=rounded)",
        "return rounded",
        "tests/quantization",
    ),
    Mutant(
        "formats: every layer has the scheme's own",
        "quantization/formats/base.py",
        "            if is_named(name, pattern):\n                return item",
        "            pass",
        "tests/quantization",
    ),
    Mutant(
        "GPTQ: later blocks make up for nothing",
        "quantization/gptq.py",
        "weight[:, part.stop :] -= errors @ factor[part, part.stop :]",
        "pass",
        "tests/quantization",
    ),
    Mutant(
        "GPTQ: later columns make up for nothing",
        "quantization/gptq.py",
        "left[..., column + 1 :] -= error[..., None] * factor[column, column + 1 :]",
        "pass",
        "tests/quantization",
    ),
    Mutant(
        "mixed precision: bytes go where they gain least",
        "quantization/allocation.py",
        "key=lambda step: (-step[0], step[1:])",
        "key=lambda step: (step[0], step[1:])",
        "tests/quantization",
    ),
    Mutant(
        "mixed precision: the limit is none",
        "quantization/allocation.py",
        "if chosen[name] == before and more <= left:",
        "if chosen[name] == before:",
        "tests/quantization",
    ),
    Mutant(
        "L1 forgets the sign",
        "pruning/criteria.py",
        "part.float().abs().sum(dim=1) for part in parts",
        "part.float().sum(dim=1) for part in parts",
        "tests/pruning",
    ),
    Mutant(
        "a layer makes up for none left out behind it",
        "pruning/goals.py",
        '{**linears, "block": own, "after": last}',
        '{**linears, "block": own, "after": own}',
        "tests/pruning",
    ),
    Mutant(
        "no layer makes up for what the stream lost before",
        "pruning/reconstruction.py",
        "in_stream = find_added(span, passes=goals)",
        "in_stream = frozenset[str]()",
        "tests/pruning",
    ),
    Mutant(
        "the fit is judged by what it was fitted to",
        "stages/prune.py",
        "batches=list(batches.sample(num_records, skip=skip)),",
        "batches=list(batches.sample(num_records)),",
        "tests/stages/test_prune.py",
    ),
    Mutant(
        "rows of the uncut layer are not those that are left",
        "pruning/kept_parts.py",
        "rows[name] = channels if name in WRITERS else left.to(uncut.device)",
        "rows[name] = channels if name in WRITERS else torch.arange(len(left))",
        "tests/pruning",
    ),
    Mutant(
        "the fit is not damped",
        "pruning/least_squares.py",
        "products + damping_ratio * scale * eye",
        "products + 1e-9 * scale * eye",
        "tests/pruning",
    ),
    Mutant(
        "a fit that is worse is kept",
        "stages/prune.py",
        "if after <= before:",
        "if True:",
        "tests/stages/test_prune.py",
    ),
    Mutant(
        "users write control tokens",
        "models/chat.py",
        "longest_first = sorted(filter(None, control_tokens), key=len, reverse=True)",
        "longest_first = list[str]()",
        "tests/models/test_chat.py",
    ),
    Mutant(
        "an answer ends with the end of a text",
        "models/chat_tokens.py",
        "    if end:\n        return cast(int, tokenizer.convert_tokens_to_ids(end))\n",
        "",
        "tests/data/loading/test_chat_template.py",
    ),
    Mutant(
        "only the first end token ends an answer",
        "runtimes/greedy.py",
        "stops or latest[slot] in end_ids or",
        "stops or latest[slot] == next(iter(end_ids)) or",
        "tests/runtimes",
    ),
    Mutant(
        "scores leave the end out",
        "runtimes/greedy.py",
        "return float(found.mean())",
        "return float(found[:-1].mean())",
        "tests/runtimes",
    ),
    Mutant(
        "scores are sums",
        "runtimes/greedy.py",
        "return float(found.mean())",
        "return float(found.sum())",
        "tests/runtimes",
    ),
    Mutant(
        "records lose their end in silence",
        "data/loading/selection.py",
        "self.num_truncated = int((self.split.lengths > config.max_length)[self.ids].sum())",
        "self.num_truncated = 0",
        "tests/data/loading",
    ),
    Mutant(
        "the loss covers the question too",
        "data/loading/batches.py",
        'if self.config.loss_on == "answer" else 0',
        'if self.config.loss_on == "all" else 0',
        "tests/data/loading tests/training",
    ),
    Mutant(
        "every pass has one order",
        "data/loading/selection.py",
        "generator = np.random.default_rng((self.config.seed, epoch))",
        "generator = np.random.default_rng((self.config.seed, 0))",
        "tests/data/loading tests/training",
    ),
    Mutant(
        "intervals are of one in two",
        "evaluation/metrics.py",
        "Z_95 = 1.959963984540054",
        "Z_95 = 0.6744897501960817",
        "tests/evaluation",
    ),
    Mutant(
        "questions of one group count as many",
        "evaluation/metrics.py",
        "effective = count / max(1.0, clustered / (share * (1 - share) / count))",
        "effective = float(count)",
        "tests/evaluation",
    ),
    Mutant(
        "the kept ratio draws both sides apart",
        "evaluation/metrics.py",
        "below = reference_hits[drawn].sum()",
        "below = reference_hits[rng.integers(0, num_groups, size=num_groups)].sum()",
        "tests/evaluation",
    ),
    Mutant(
        "intervals of bootstraps are too narrow",
        "evaluation/metrics.py",
        "np.nanquantile(samples, [0.025, 0.975])",
        "np.nanquantile(samples, [0.1, 0.9])",
        "tests/evaluation",
    ),
    Mutant(
        "speed is a ratio of means",
        "evaluation/metrics.py",
        "point = float(np.median(reference_seconds) / np.median(seconds))",
        "point = float(np.mean(reference_seconds) / np.mean(seconds))",
        "tests/evaluation",
    ),
    Mutant(
        "a list is right from a half",
        "evaluation/tasks.py",
        "LIST_F1 = 0.8\n",
        "LIST_F1 = 0.5\n",
        "tests/evaluation",
    ),
    Mutant(
        "the least probable option is chosen",
        "evaluation/tasks.py",
        "best = max(range(len(scores)), key=scores.__getitem__)",
        "best = min(range(len(scores)), key=scores.__getitem__)",
        "tests/evaluation",
    ),
    Mutant(
        "merges make no other tokenizer",
        "models/tokenizer_identity.py",
        "if self.merges != other.merges:",
        "if False:",
        "tests/models/test_tokenizer_identity.py",
    ),
    Mutant(
        "sampling cuts nothing off",
        "models/generation.py",
        "ordered = ordered.masked_fill(before >= top_p, 0.0)",
        "pass",
        "tests/models/test_generation.py",
    ),
    Mutant(
        "run --until makes everything",
        "pipeline/entry.py",
        "return {key: entry for key, entry in entries.items() if key in needed}",
        "return dict(entries)",
        "tests/pipeline/test_check.py",
    ),
)


def main() -> None:
    """Try every mutant and report which ones live."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--only", default="", help="mutants whose name holds this")
    options = parser.parse_args()
    start = environment()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    rows = []
    for mutant in chosen[: QUICK if options.quick else None]:
        outcome = try_mutant(mutant)
        print(f"{outcome}: {mutant.name}", flush=True)
        rows.append({**asdict(mutant), "outcome": outcome})
    killed = sum(row["outcome"] == "killed" for row in rows)
    report(
        options,
        environment=start,
        rows=rows,
        ratios={"killed": round(killed / len(rows), 4), "mutants": len(rows)},
        labels=("name", "outcome"),
    )


def try_mutant(mutant: Mutant) -> str:
    """`killed`, `lived`, or `not applied` where the text does not stand in the file once."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "limbeck"
        ignored = shutil.ignore_patterns(".venv", ".git", "runs", "__pycache__", "results")
        shutil.copytree(HERE, root, ignore=ignored)
        path = root / "limbeck" / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            return "not applied"
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *mutant.tests.split()],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    # 1: tests failed; anything else is no verdict on the mutant.
    return {0: "lived", 1: "killed", 2: "killed"}.get(done.returncode, f"pytest {done.returncode}")


if __name__ == "__main__":
    main()
