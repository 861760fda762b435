"""The seam of every teacher: where a batch's targets come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.contracts.errors import ArtifactError
from limbeck.distillation.targets import Targets
from limbeck.models.batch import Batch


class Teacher(ABC):
    """A model in memory, recorded signals, an endpoint's labels, or several of them as one."""

    vocab: int
    """Real tokens, without padding rows."""
    hidden_size: int
    """Of the hidden states; 0 where the teacher has none to give."""
    layers: tuple[int, ...]
    """Layers whose hidden states can be required, counted from 1, ascending."""
    live_model: PreTrainedModel | None
    """The model that runs on every batch; None for what was computed before."""

    @abstractmethod
    def require(self, *, layers: Sequence[int] = (), attention: Sequence[int] = ()) -> None:
        """From now on return hidden states of `layers`, and attention of the layers `attention`.

        Raises:
            ArtifactError: the teacher has no such layers, or no attention to return.
        """

    @abstractmethod
    def __call__(self, batch: Batch) -> Targets:
        """The targets at the batch's kept positions."""

    def close(self) -> None:  # noqa: B027
        """Undo what opening the teacher changed on its model; nothing by default."""


class OutputTeacher(Teacher):
    """A teacher that returns distributions alone, without hidden states or attention."""

    hidden_size = 0
    layers = ()
    live_model = None

    @override
    def require(self, *, layers: Sequence[int] = (), attention: Sequence[int] = ()) -> None:
        if layers or attention:
            raise ArtifactError(
                "layers are matched with one live teacher or with signals that hold hidden states, "
                f"and {type(self).__name__} returns neither hidden states nor attention; name the "
                "teacher's checkpoint in `teacher`, or remove `matching`"
            )
