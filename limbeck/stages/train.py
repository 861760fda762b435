"""Corpus, and perhaps a checkpoint, to a checkpoint: pre-training, fine-tuning, reinforcement.

The objective decides which of them it is: it learns from records, from pairs of answers, or from
answers that the model samples.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import TrainingError
from limbeck.data.loading.batches import Batches, validation_batches
from limbeck.data.loading.preference_pairs import PreferenceBatches
from limbeck.data.loading.selection import read_selected
from limbeck.distillation.initialization.from_weights import copy_matching_weights, open_source
from limbeck.evaluation.metrics import entity_f1
from limbeck.models.adapters import add_adapter, merge_adapter
from limbeck.models.batch import Batch
from limbeck.models.chat_tokens import chat_template_of, end_token_ids
from limbeck.models.checkpoints import load_model, open_start
from limbeck.models.forward import KeptForward, count_picks, measure_entropy
from limbeck.models.generation import check_room
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import Objective, ObjectiveContext
from limbeck.objectives.config import BatchKind
from limbeck.reinforcement.config import Grpo
from limbeck.reinforcement.rewards import AnswerSample, check_domain, score
from limbeck.reinforcement.rollouts import RolloutPrompt, Rollouts, TokenizerIO
from limbeck.sizing.parameters import size_model
from limbeck.stages.config.train import Config
from limbeck.training.distributed.ranks import place
from limbeck.training.early_stopping import make_stopper
from limbeck.training.finish import save_trained
from limbeck.training.loop import fit
from limbeck.training.token_budget import report_tokens

ROUTED_RECORDS = 1024
"""Training records on which the experts' load is reported."""


@dataclass(frozen=True)
class TrainingSetup:
    """What one run of training learns from, and by which objective."""

    batches: Callable[[int], list[Batch]]
    objective: Objective
    records: Batches
    """The records behind the batches."""
    tokens_per_step: float
    """As estimated from the corpus before training."""
    count_tokens: Callable[[int], int]
    """Tokens that so many finished steps have read."""
    rollouts: Rollouts | None = None


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the trained checkpoint, its training curve, and a mixture's expert load."""
    corpus = Corpus(work.one("corpus").path)
    tokenizer, model = open_start(config.model, work=work, field="model", seed=config.seed)
    inherited: dict[str, object] = {}
    if config.initialize_from:
        source = open_source(work.one("initialize_from").path, tokenizer=tokenizer)
        assert not isinstance(config.model, str)
        keep = config.model.sets_rotary
        inherited = copy_matching_weights(model, teacher=source, keep_rotary=keep).metrics()
    if config.lora is not None:
        add_adapter(model, config=config.lora)
    setup = SETUPS[config.objective.batch_kind](config, work, model, tokenizer)
    training = config.training.resolve_steps(tokens_per_step=setup.tokens_per_step)
    held_out = partial(validation_batches, corpus, **_loading_options(config, model, tokenizer))
    stopper = make_stopper(training, held_out=held_out)
    history = fit(
        model,
        batches=setup.batches,
        objective=setup.objective,
        config=training,
        state=work.state,
        title=work.name,
        on_step=work.on_step,
        stateful=setup.rollouts,
        stopper=stopper,
    )
    if setup.rollouts is not None:
        means = {point["step"]: point for point in setup.rollouts.curve}
        history = [point | means[point["step"]] for point in history]
    adapter = merge_adapter(model, config=config.lora, folder=work.folder) if config.lora else {}
    num_steps = stopper.stopped_step if stopper is not None else training.max_steps
    metrics = save_trained(
        model,
        tokenizer=tokenizer,
        history=history,
        max_steps=training.max_steps,
        stopper=stopper,
        held_out=held_out(),
        folder=work.folder,
    )
    load = report_load(model, setup.records)
    if load:
        (work.folder / "routing.json").write_text(json.dumps(load, ensure_ascii=False))
    records = setup.records
    return {
        **metrics,
        **adapter,
        "parameters": sum(item.numel() for item in model.parameters()),
        "truncated_records": records.records.num_truncated,
        "passes": num_steps * records.records.records_per_step / len(records.records.epoch),
        **inherited,
        **report_tokens(config.training.max_steps, seen_tokens=setup.count_tokens(num_steps)),
    }


def _loading_options(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """How the corpus is read for this model."""
    return {
        "tokenizer": tokenizer,
        "config": config.batching,
        "image_format": image_format(model.config),
    }


def _set_up_records(
    config: Config, work: Work, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> TrainingSetup:
    batches = Batches(Corpus(work.one("corpus").path), **_loading_options(config, model, tokenizer))
    objective = config.objective.build(ObjectiveContext(model))
    return TrainingSetup(
        batches, objective, batches, batches.records.tokens_per_step, batches.records.count_tokens
    )


def _set_up_pairs(
    config: Config, work: Work, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> TrainingSetup:
    pairs = PreferenceBatches(
        Corpus(work.one("corpus").path), tokenizer=tokenizer, config=config.batching
    )
    reference = _open_reference(work)
    objective = config.objective.build(ObjectiveContext(model, reference=KeptForward(reference)))
    return TrainingSetup(pairs, objective, pairs.better, pairs.tokens_per_step, pairs.count_tokens)


def _set_up_rollouts(
    config: Config, work: Work, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> TrainingSetup:
    """Answers that the model samples; a step has as many questions as `batching` counts."""
    if PartialState().num_processes > 1:
        raise TrainingError("objective 'grpo' samples in one process; run it without a launcher")
    corpus, objective = Corpus(work.one("corpus").path), config.objective
    assert isinstance(objective, Grpo)
    prompts = Batches(
        corpus,
        tokenizer=tokenizer,
        config=config.batching.replace(select="questions"),
        used="prompts",
    )
    records = read_selected(corpus, prompts.config)
    check_room(
        model,
        longest_tokens=int(prompts.records.answer_starts[prompts.records.ids].max()),
        max_tokens=config.batching.max_length,
        max_new_tokens=objective.max_completion_length,
        field="objective.max_completion_length",
    )
    answer_format = corpus.answer_format()
    check_domain(answer_format, weights=objective.rewards, path=corpus.folder)

    def reward_function(text: str, ended: bool, expected: str) -> dict[str, float]:
        sample = AnswerSample(text, ended, expected, entity_f1(text, expected=[expected]))
        return score(sample, answer_format=answer_format, weights=objective.rewards)

    template = chat_template_of(tokenizer)
    rollouts = Rollouts(
        objective,
        model=place(model),
        reference=_open_reference(work),
        prompts=lambda step: [
            RolloutPrompt(prompts.records.prompt(record_id), records[record_id].answer)
            for record_id in prompts.records.order(step).tolist()
        ],
        reward_function=reward_function,
        num_parts=config.batching.gradient_accumulation_steps,
        seed=config.training.seed,
        tokenizer_io=TokenizerIO(
            lambda tokens: template.strip_opening(
                str(tokenizer.decode(list(tokens), skip_special_tokens=True))
            ),
            end_ids=end_token_ids(tokenizer),
            pad_id=prompts.pad,
        ),
    )
    return TrainingSetup(
        rollouts,
        objective.build(ObjectiveContext(model, experience=rollouts.experience_of)),
        prompts,
        prompts.records.tokens_per_step * objective.num_generations,
        lambda steps: int(sum(point["rollout_tokens"] for point in rollouts.curve)),
        rollouts,
    )


def _open_reference(work: Work) -> PreTrainedModel:
    """The start model once more, for reading only."""
    return place(load_model(work.one("model").path).eval().requires_grad_(False))


SETUPS: dict[BatchKind, Callable[..., TrainingSetup]] = {
    "records": _set_up_records,
    "pairs": _set_up_pairs,
    "rollouts": _set_up_rollouts,
}


@torch.no_grad()
def report_load(model: PreTrainedModel, batches: Batches) -> dict[str, object]:
    """Which experts the router picks, how sure it is, and what it saves; empty if dense.

    `layers` and `by_specialty` count picks; `entropy_ratios` are means over tokens, 1 for a gate
    that prefers none; `skipped_ratio` is the share of the experts' arithmetic that was not done,
    the gate's own counted on both sides.
    """
    forward = KeptForward(model.eval())
    count = min(ROUTED_RECORDS, len(batches.records))
    chosen = [
        int(batches.records.ids[index * len(batches.records) // count]) for index in range(count)
    ]
    by_specialty: dict[str, torch.Tensor] = {}
    entropy, num_tokens = torch.zeros(()), 0
    for name in sorted(set(map(batches.records.specialty, chosen))):
        members = [index for index in chosen if batches.records.specialty(index) == name]
        for first in range(0, len(members), 64):
            batch = batches.batch(members[first : first + 64]).to(model.device)
            routing = forward(batch).routing
            if not routing:
                return {}
            tokens = batch.tokens.reshape(-1)
            picks = count_picks(routing, tokens=tokens).cpu()
            by_specialty[name] = by_specialty.get(name, torch.zeros_like(picks)) + picks
            entropy = entropy + measure_entropy(routing, tokens=tokens).cpu()
            num_tokens += int(tokens.sum())
    layers = torch.stack(list(by_specialty.values())).sum(dim=0)
    size = size_model(model.config, context_tokens=1)
    done = size.expert_parameters * float(layers.sum()) / (num_tokens * layers.numel())
    return {
        "layers": layers.tolist(),
        "by_specialty": {name: picks.tolist() for name, picks in by_specialty.items()},
        "entropy_ratios": (entropy / num_tokens).tolist(),
        "skipped_ratio": 1
        - (done + size.gate_parameters) / (size.expert_parameters + size.gate_parameters),
    }
