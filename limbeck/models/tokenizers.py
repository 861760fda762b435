"""Tokenizers of checkpoints, bundles and corpora, with the chat template that goes with each.

Opening one imports none of transformers' models, and opening a corpus's own no torch.
"""

import json
import logging
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from limbeck.contracts.answerer import alternate
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.models.chat import PLAIN_TEMPLATE
from limbeck.models.chat_tokens import chat_template_of
from limbeck.models.config_file import LOCAL, read_config
from limbeck.models.tokenizer_identity import identify

logger = logging.getLogger(__name__)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a checkpoint, bundle or tokenizer folder; without a template, a plain one.

    Raises:
        CheckpointError: there is none, it is damaged, it has no end token, or it has tokens that
            the model beside it does not know.
    """
    if not (folder / "tokenizer_config.json").is_file():
        raise CheckpointError(f"{folder}: no tokenizer_config.json; copy the tokenizer files too")
    try:
        tokenizer = _open(folder)
    except Exception as error:
        raise CheckpointError(f"{folder}: tokenizer cannot be read: {str(error)[:400]}") from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{folder}: the tokenizer has no eos_token; answers could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    _try_out(tokenizer, folder)
    return tokenizer


def _open(folder: Path) -> PreTrainedTokenizerBase:
    """As `AutoTokenizer` opens it, which a folder of a tokenizer alone can do without."""
    alone = not (folder / "config.json").exists() and (folder / "tokenizer.json").is_file()
    if alone and _settings(folder).get("tokenizer_class") == PreTrainedTokenizerFast.__name__:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    from transformers import AutoTokenizer  # noqa: PLC0415  (torch)

    # Both tell transformers of our architectures, which it looks up beside a tokenizer.
    import limbeck.models.moe.configuration  # noqa: PLC0415
    import limbeck.models.vision.configuration  # noqa: F401, PLC0415

    return AutoTokenizer.from_pretrained(folder, **LOCAL)


def _settings(folder: Path) -> JsonObject:
    """Those of a tokenizer's folder; none where they cannot be read."""
    path = folder / "tokenizer_config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def has_template(folder: Path) -> bool:
    """Whether a tokenizer's folder holds a chat template of its own."""
    beside = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    return bool(_settings(folder).get("chat_template")) or any(
        (folder / name).exists() for name in beside
    )


def load_reader(folder: Path, *, corpus: Corpus) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint that reads a corpus.

    Its chat template is the corpus's where the recipe states one, or where the checkpoint has none,
    unless the tokenizers differ.

    Raises:
        CheckpointError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(folder)
    if has_template(folder) and not corpus.states_template():
        return tokenizer
    ours = load_tokenizer(corpus.tokenizer_path)
    if ours.chat_template != tokenizer.chat_template:
        if difference := identify(tokenizer).find_difference(identify(ours)):
            logger.warning(
                "%s: keeps its own chat template, for its tokenizer is not the corpus's (%s)",
                folder,
                difference,
            )
        else:
            tokenizer.chat_template = ours.chat_template
    return tokenizer


def check_template(tokenizer: PreTrainedTokenizerBase, place: Path) -> None:
    """Render a question, so that a damaged template shows here and not in the middle of a run.

    Raises:
        CheckpointError: it cannot be rendered.
    """
    try:
        text = chat_template_of(tokenizer).render(alternate(["?"]))
        if "?" not in text:
            raise ValueError(f"the question is missing from what the template renders: {text!r}")
        tokenizer(text)
    except Exception as error:  # a template and a tokenizer's settings can hold anything
        raise CheckpointError(
            f"{place}: the tokenizer or its chat template cannot render a question: "
            f"{str(error)[:400]}; copy the tokenizer files again"
        ) from error


def _try_out(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    check_template(tokenizer, folder)
    if not (folder / "config.json").is_file():
        return
    config = read_config(folder)
    rows = config.get("text_config", config).get("vocab_size")
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(rows, int) and highest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer's highest token is {highest}, the model knows {rows} tokens; "
            "they do not belong together"
        )
