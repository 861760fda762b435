"""The model that a target asks for: its sizes, its vocabulary, and where both were read."""

from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.pointers import follow
from limbeck.models.config import DenseModel, ModelConfig
from limbeck.models.decoder_sizes import SizedConfig, read_sizes
from limbeck.models.vocabulary import Vocabulary
from limbeck.pipeline.known_models import open_folder
from limbeck.planning.designs import choose_nearest, list_fresh
from limbeck.planning.targets import ASSUMED_VOCAB, Target
from limbeck.sizing.file_formats import VocabularyBytes
from limbeck.sizing.vocabulary_bytes import TOKENIZER, assume_vocabulary, read_tokenizer


@dataclass(frozen=True)
class SizedWanted:
    """A model that is asked for, and what its tokenizer takes."""

    name: str
    sizes: "SizedConfig | None"
    """None where as many parameters as fit are asked for."""
    num_tokens: int
    vocabulary: VocabularyBytes
    vocabulary_from: str


def find_wanted(target: Target) -> SizedWanted:
    """What a target asks for.

    Raises:
        CheckpointError: a folder holds no tokenizer, or no checkpoint.
    """
    model = target.model
    if isinstance(model.start, str) and model.start:
        return _open_start(Path(model.start))
    if model.tokenizer:
        facts = read_tokenizer(follow(Path(model.tokenizer)))
        tokens, vocabulary, source = facts.num_tokens, facts.bytes, model.tokenizer
    else:
        tokens = model.vocab or ASSUMED_VOCAB
        vocabulary, source = assume_vocabulary(tokens), "stated" if model.vocab else "assumed"
    sizes = None
    if isinstance(model.start, ModelConfig):
        sizes = _describe(model.start, tokens)
    elif model.parameters:
        fresh = list_fresh(model.family, tokens, target.context_tokens)
        sizes = choose_nearest(fresh, parameters=model.parameters).sizes
    return SizedWanted("model", sizes, tokens, vocabulary, source)


def assume_tokenizer(name: str, sizes: SizedConfig) -> SizedWanted:
    """A model of a recipe, whose tokenizer's bytes are those of an average one."""
    tokens = sizes.get_text_config().vocab_size
    return SizedWanted(name, sizes, tokens, assume_vocabulary(tokens), "the recipe")


def _describe(start: ModelConfig, tokens: int) -> SizedConfig:
    vocabulary = Vocabulary(tokens)
    return start.sizes(vocabulary) if isinstance(start, DenseModel) else start.describe(vocabulary)


def _open_start(folder: Path) -> SizedWanted:
    """A checkpoint's sizes, read without transformers where its config states them all."""
    place = follow(folder)
    sizes: SizedConfig | None = read_sizes(place)
    if sizes is None:
        known = open_folder(str(folder))
        if known is None:
            raise CheckpointError(
                f"{folder}: holds no checkpoint; name a folder in transformers' format"
            )
        sizes = known.config
    tokens = sizes.get_text_config().vocab_size
    if (place / TOKENIZER).is_file():
        facts = read_tokenizer(place, num_rows=tokens)
        return SizedWanted(folder.name, sizes, tokens, facts.bytes, str(folder))
    return SizedWanted(folder.name, sizes, tokens, assume_vocabulary(tokens), "its config")
