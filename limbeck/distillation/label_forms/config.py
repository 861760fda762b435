"""What `label` writes of a teacher's answers; `LABEL_FORMS` of the registry lists the forms."""

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveRatio,
    Ratio,
)
from limbeck.contracts.records import Record
from limbeck.distillation.endpoint.config import EndpointConfig

if TYPE_CHECKING:
    from limbeck.distillation.endpoint.labeler import Labeler, Labelled

NO_REWARDS: Mapping[str, float] = {}
KeptSamples = Literal["best", "distinct", "all"]


class LabelForm(Config, abc.ABC):
    """Base of every form in which a teacher's answers are written."""

    kind: str
    """The name of the form, as in the registry."""

    @abc.abstractmethod
    async def label(self, record: Record, *, labeler: "Labeler") -> "Labelled":
        """A record with what a server writes of it.

        Raises:
            CallError: there is no usable answer.
            EndpointError: there will be none for any record.
        """

    @abc.abstractmethod
    def check_endpoint(self, endpoint: EndpointConfig) -> None:
        """Refuse seeds that a server would not get, or that would make all samples the same.

        Raises:
            ValueError: there are such seeds.
        """

    def describe(self, items: Sequence["Labelled"]) -> dict[str, object]:
        """What the metrics say of the form.

        Raises:
            DataError: what was labelled cannot be learnt from.
        """
        return {}

    @property
    def folder_answers(self) -> "Answers | None":
        """What a teacher in a folder draws; None where only a server writes this form."""
        return None

    @property
    def is_measured_by_agreement(self) -> bool:
        """Whether there are several samples of an answer that is kept."""
        return False

    @property
    def reward_weights(self) -> Mapping[str, float]:
        """What samples are compared by; empty: by their agreement."""
        return NO_REWARDS

    @property
    def num_top_log_probs(self) -> int:
        """Tokens at each place whose log-probabilities are stored; 0: none."""
        return 0


class Answers(LabelForm):
    """The teacher's answer in place of the record's own."""

    kind: Literal["answers"]
    samples: PositiveInt = 1
    """Answers drawn to each question. Of several, the one that agrees most with the others is
    taken: the mean entity F1 with them, for a label the share of them that are the same."""
    temperature: NonNegativeFloat = 0.0
    """Of drawing; 0 takes the likeliest tokens."""
    seed: NonNegativeInt = 0
    """Of drawing. Each sample of each question has a seed of its own that follows from it."""
    min_agreement_ratio: Ratio = 0.0
    """A question whose best sample agrees less with the others stays without an answer."""
    keep: KeptSamples = "best"
    """Which samples become records: the best one, each that differs, or each as often as it was
    drawn, from which a student learns the teacher's distribution over answers."""

    @model_validator(mode="after")
    def _check_samples(self) -> "Answers":
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"samples: at temperature 0 all {self.samples} are the same; set write.temperature"
            )
        if self.samples == 1 and (self.min_agreement_ratio or self.keep != "best"):
            raise ValueError(
                "min_agreement_ratio and keep choose among several samples; raise write.samples"
            )
        if self.samples == 2 and self.keep == "best" and not self.min_agreement_ratio:
            raise ValueError("two samples agree with each other alike; ask for 3 samples or more")
        if self.seed and not self.temperature:
            raise ValueError("seed: at temperature 0 nothing is drawn; set write.temperature")
        return self

    @override
    async def label(self, record: Record, *, labeler: "Labeler") -> "Labelled":
        return await labeler.answer(record, write=self)

    @override
    def check_endpoint(self, endpoint: EndpointConfig) -> None:
        if not self.temperature:
            _refuse_seed_field(endpoint)
        if self.seed and not endpoint.seed_field:
            raise ValueError(
                "write.seed: name the server's field for it as endpoint.seed_field, or leave it "
                "out; answers that came once are kept"
            )
        if self.samples > 1:
            _refuse_one_seed(endpoint)

    @property
    @override
    def folder_answers(self) -> "Answers":
        return self

    @property
    @override
    def is_measured_by_agreement(self) -> bool:
        return self.samples > 1


class Preferences(LabelForm):
    """Several answers: the best one is the answer, the worst one is rejected."""

    kind: Literal["preferences"]
    samples: Annotated[int, Field(ge=2)] = 4
    temperature: PositiveFloat = 1.0
    better_by: Literal["agreement"] | Mapping[str, PositiveFloat] = "agreement"
    """Agreement with the other samples, or weights of rewards by name (`limbeck list rewards`)."""

    @model_validator(mode="after")
    def _check_samples(self) -> "Preferences":
        if not self.better_by:
            raise ValueError("better_by names no reward; name some, or compare by `agreement`")
        if self.better_by == "agreement" and self.samples < 3:
            raise ValueError("two samples agree with each other alike; ask for 3 samples or more")
        return self

    @override
    async def label(self, record: Record, *, labeler: "Labeler") -> "Labelled":
        return await labeler.compare(record, write=self)

    @override
    def check_endpoint(self, endpoint: EndpointConfig) -> None:
        _refuse_seed_field(endpoint)
        _refuse_one_seed(endpoint)

    @override
    def describe(self, items: Sequence["Labelled"]) -> dict[str, object]:
        from limbeck.distillation.label_forms.metrics import describe_pairs

        return describe_pairs(items)

    @property
    @override
    def reward_weights(self) -> Mapping[str, float]:
        return NO_REWARDS if self.better_by == "agreement" else self.better_by


class Logprobs(LabelForm):
    """An answer, sampled at temperature 1, with the likeliest tokens at each of its places."""

    kind: Literal["logprobs"]
    top: Annotated[int, Field(ge=2, le=128)] = 20
    """Tokens at each place; many servers allow 20 at most."""
    min_aligned_ratio: PositiveRatio = 0.8
    """With fewer of the returned tokens aligned, the server's tokenizer is too unlike ours."""

    @override
    async def label(self, record: Record, *, labeler: "Labeler") -> "Labelled":
        return await labeler.read_log_probs(record, top=self.top)

    @override
    def check_endpoint(self, endpoint: EndpointConfig) -> None:
        _refuse_seed_field(endpoint)

    @override
    def describe(self, items: Sequence["Labelled"]) -> dict[str, object]:
        from limbeck.distillation.label_forms.metrics import describe_log_probs

        return describe_log_probs(items, min_aligned_ratio=self.min_aligned_ratio)

    @property
    @override
    def num_top_log_probs(self) -> int:
        return self.top


def _refuse_seed_field(endpoint: EndpointConfig) -> None:
    if endpoint.seed_field:
        raise ValueError("endpoint.seed_field is for answers that are drawn; leave it out")


def _refuse_one_seed(endpoint: EndpointConfig) -> None:
    if "seed" in endpoint.extra:
        raise ValueError(
            "endpoint.extra: with one seed all samples are the same; name the field as "
            "endpoint.seed_field, or leave it out"
        )
