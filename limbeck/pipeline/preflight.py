"""What a run would refuse of its models, found before it starts; and what it will do unasked.

Every folder that a recipe names is opened: config, tokenizer, chat template, heads of the weight
files. Then each stage is asked what it refuses of the models that it would get.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.contracts.errors import Fault, LimbeckError
from limbeck.contracts.recipe import Recipe
from limbeck.models.chat import NO_TEMPLATE
from limbeck.models.known import ChecksInputs, KnownModel, KnownTokenizer
from limbeck.models.vocabulary import Vocabulary
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.known_models import MODEL_KINDS, KnownModels, ReadsBatches, locate

ASSUMED_VOCAB = 2000
"""Tokens of a tokenizer that is not trained yet: nothing that is checked depends on it."""


@dataclass
class Findings:
    """Faults that would end a run, and notes on what it does unasked."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect_models(recipe: Recipe, entries: Mapping[str, Entry]) -> Findings:
    """What can be known of a recipe's models; `entries` in the order in which they run."""
    models = KnownModels(entries, vocabulary=_assume_vocabulary)
    inspection = _Inspection(recipe, entries, models)
    for entry in entries.values():
        inspection.inspect_entry(entry)
    return inspection.findings


def _assume_vocabulary(entry: Entry) -> Vocabulary:
    return Vocabulary(ASSUMED_VOCAB)


class _Inspection:
    """One walk through a recipe; what starts from a faulty model is not judged for itself."""

    def __init__(self, recipe: Recipe, entries: Mapping[str, Entry], models: KnownModels) -> None:
        self.recipe, self.entries, self.models = recipe, entries, models
        self.findings = Findings()
        self._opened: dict[str, bool] = {}
        self._faulty: set[str] = set()

    def inspect_entry(self, entry: Entry) -> None:
        """Open what an entry names outside the recipe, then ask its stage."""
        sound = self._open_tokenizer(entry)
        for reference in entry.references:
            if reference.target in self.entries:
                sound &= reference.target not in self._faulty
            elif {*reference.kinds} & {*MODEL_KINDS} and reference.field != "tokenizer":
                sound &= self._open_model(entry, reference.field, reference.target)
        if not sound:
            self._faulty.add(entry.name)
            return
        try:
            if isinstance(entry.config, ChecksInputs):
                for refusal in entry.config.check_inputs(self.models.inputs(entry)):
                    self._blame(entry, refusal.field, refusal.message)
            self._note_lengths(entry)
        except LimbeckError as error:
            self._blame(entry, "", str(error))

    def _blame(self, entry: Entry, field: str, message: str) -> None:
        where = f"{entry.name}.{field}" if field else entry.name
        line = self.recipe.line(entry.name, *field.split("."))
        self.findings.faults.append(Fault(where, message, line))
        self._faulty.add(entry.name)

    def _note(self, text: str) -> None:
        if text not in self.findings.notes:
            self.findings.notes.append(text)

    def _open_tokenizer(self, entry: Entry) -> bool:
        """Whether the tokenizer that a corpus's entry names can be used."""
        if entry.config.make != "corpus" or entry.target("corpus"):
            return True
        named = entry.target("tokenizer")
        folder = locate(named) if named and named not in self.entries else None
        if folder is None:
            return True
        known = KnownTokenizer(entry.name, folder)
        sound = self._try(entry, "tokenizer", lambda: known.loaded)
        if sound:
            self._note_template(named, folder)
        return sound

    def _note_template(self, name: str, folder: Path) -> None:
        from limbeck.models.tokenizers import has_template

        stated = any(
            isinstance(dict(entry.config).get("chat_template"), Path)
            for entry in self.entries.values()
        )
        if not stated and not has_template(folder):
            self._note(f"{name} {NO_TEMPLATE}")

    def _open_model(self, entry: Entry, field: str, target: str) -> bool:
        """Whether the checkpoint that a reference names outside the recipe can be used."""
        if target not in self._opened:
            self._opened[target] = True
            model = self.models.open(target)
            if model is not None:
                self._opened[target] = self._try(entry, field, lambda: _open(model))
                if self._opened[target] and model.folder is not None:
                    self._note_template(target, model.folder)
            elif locate(target) is None:
                self._note(
                    f"{target}: the hub does not give its config, so nothing of it is checked "
                    "before it is used"
                )
        return self._opened[target]

    def _try(self, entry: Entry, field: str, check: Callable[[], object]) -> bool:
        try:
            check()
        except LimbeckError as error:
            self._blame(entry, field, str(error))
            return False
        return True

    def _note_lengths(self, entry: Entry) -> None:
        if not isinstance(entry.config, ReadsBatches):
            return
        inputs, wanted = self.models.inputs(entry), entry.config.batching.max_length
        read = [model for named in inputs.models.values() for model in named]
        for model in (inputs.start, *read):
            if model is None or model.description is not None:
                continue  # a fresh model's recipe states both
            if model.max_tokens is not None and wanted > model.max_tokens:
                self._note(
                    f"{entry.name}: records of up to {wanted} tokens (batching.max_length) reach "
                    f"beyond the {model.max_tokens} positions that {model.name} is made for"
                )


def _open(model: KnownModel) -> None:
    """Everything of a folder but the numbers.

    Raises:
        CheckpointError: it cannot be used.
    """
    from limbeck.models.checkpoints import check_weights

    assert model.folder is not None and model.tokenizer is not None
    _ = model.config
    _ = model.tokenizer.loaded
    if any(model.folder.glob("*.safetensors")) or not _is_description(model.folder):
        check_weights(model.folder)


def _is_description(folder: Path) -> bool:
    """Whether a folder is the hub's cache, where weights come when they are used."""
    return folder.parent.name == "snapshots"
