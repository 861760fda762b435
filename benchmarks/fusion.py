"""Three ways to fuse the experts' outputs, at equal steps and at equal training FLOPs.

`weighted_sum` is trained for the full number of steps; the others once for as many, and once for as
many as cost the same arithmetic. Differences are paired by seed. Left out: other model sizes.
"""

from ablating import Variant, compare, describe_base, measure, time_training, train
from reporting import environment, parse_options, report

from limbeck.models.config import MoeModel
from limbeck.models.vocabulary import Vocabulary
from limbeck.sizing.parameters import size_model

STEPS = 400
COLUMNS = ("validation_loss", "recall", "symptom_sets", "accuracy")


def training_flops(model: dict) -> float:
    """Of one token of a record of the corpus' usual length."""
    config = MoeModel.model_validate(model).describe(Vocabulary(1500))
    return size_model(config, context_tokens=32).training_flops


def list_variants(steps: int) -> list[Variant]:
    """The weighted sum, and each attention twice."""
    base = describe_base()
    plain = base | {"fusion": "weighted_sum"}
    found = [Variant("weighted_sum", plain, steps)]
    for kind in ("attention", "full_attention"):
        model = base | {"fusion": kind}
        fewer = round(steps * training_flops(plain) / training_flops(model))
        found += [Variant(kind, model, steps), Variant(f"{kind}_equal_flops", model, fewer)]
    return found


def main() -> None:
    options = parse_options(__doc__ or "")
    machine = environment()
    seeds = (0, 1, 2)
    variants = list_variants(8 if options.quick else STEPS)
    made = train(variants, seeds=seeds, name="fusion-quick" if options.quick else "fusion")
    rows = measure(variants, seeds=seeds, made=made)
    once = [item for item in variants if not item.name.endswith("_equal_flops")]
    times = time_training(once, corpus=made["corpus"].path, turns=3 if options.quick else 15)
    ratios = {
        name: value
        for variant in variants[1:]
        for column in COLUMNS
        for name, value in compare(rows, name=variant.name, against="weighted_sum", column=column)
    }
    report(
        options,
        environment=machine,
        rows=rows,
        ratios=ratios,
        labels=("variant",),
        tables={"times": times},
    )


if __name__ == "__main__":
    main()
