"""Where the models of tiers come from, and how they change while a service runs."""

import abc
from dataclasses import dataclass

from limbeck.serving.config import TierConfig
from limbeck.serving.open import ServedModel


@dataclass(frozen=True)
class Assignment:
    """The models of a tier at a moment."""

    champion: ServedModel
    candidate: ServedModel | None = None
    version: str = ""
    """Another one after each change, also where a change names the same models again."""


class ModelSource(abc.ABC):
    """Knows the models of tiers; asked about once a second, in a thread."""

    @abc.abstractmethod
    def find(self, tier: TierConfig) -> Assignment:
        """The models that a tier should have now.

        Raises:
            ArtifactError: there is none.
        """

    @abc.abstractmethod
    def verify(self, model: ServedModel) -> None:
        """Nothing, when a model's files are those that were made.

        Raises:
            ArtifactError: some are missing or differ.
        """
