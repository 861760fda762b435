"""Fetching a published checkpoint by its hub name."""

from contextlib import suppress
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from limbeck.contracts.errors import CheckpointError

DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configs, tokenizers and templates: what is known of a model before its weights are here."""
FILES = (*DESCRIPTION, "*.safetensors")


def fetch_checkpoint(name: str) -> Path:
    """The local folder of a published checkpoint, downloaded once.

    Raises:
        CheckpointError: the hub cannot be reached, or holds no such model.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{name!r} is no entry and no folder, and cannot be fetched from the hub: "
            f"{str(error)[:300]}; copy the model into a folder and name that"
        ) from error


def find_description(name: str) -> Path | None:
    """The local folder of a published checkpoint's small files; None where the hub gives none."""
    for local in (True, False):
        with suppress(HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
            return Path(
                snapshot_download(name, allow_patterns=list(DESCRIPTION), local_files_only=local)
            )
    return None
