"""Settings of the stage `label`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.registry import REWARDS
from limbeck.contracts.stage import CorpusRef, StageConfig
from limbeck.distillation.endpoint.config import Answers, EndpointConfig, Logprobs, Preferences
from limbeck.reinforcement.rewards import name_domain_rewards


class Config(StageConfig):
    """Let a model behind an OpenAI-compatible server answer a corpus's training questions."""

    make: ClassVar[Kind] = "corpus"
    stage: Literal["label"]
    corpus: CorpusRef
    endpoint: EndpointConfig
    write: Annotated[Answers | Preferences | Logprobs, Field(discriminator="kind")]
    """What to write: answers, preferences or logprobs."""
    system: str = ""
    """System prompt of the records that have none of their own; empty: none."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 512
    """Longest answer, in the server's tokens; one that is cut off there counts as failed."""
    failed: Literal["leave_out", "keep"] = "leave_out"
    """What becomes of records that got no usable answer: they go, or keep the answer they had."""
    max_failed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    """A larger share of failed records stops the run, so that the cause can be mended first."""

    @model_validator(mode="after")
    def _check_rewards(self) -> "Config":
        if isinstance(self.write, Preferences) and self.write.better_by != "agreement":
            for name in self.write.better_by:
                if name not in REWARDS:
                    raise ValueError(str(UnknownNameError(name, known=REWARDS, what="reward")))
        return self

    @property
    @override
    def domain_need(self) -> str:
        if isinstance(self.write, Preferences) and self.write.better_by != "agreement":
            return name_domain_rewards(self.write.better_by)
        return ""

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.label import run

        return run(self, work=work)
