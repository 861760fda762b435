"""The transformers runtime: a checkpoint answers as it is, in torch."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from limbeck.contracts.answerer import Answerer, Size
from limbeck.contracts.artifacts import MANIFEST
from limbeck.contracts.fields import Precision
from limbeck.models.chat_tokens import chat_template_of, encode_texts, end_token_ids
from limbeck.models.checkpoints import load_model, open_config, read_number_format
from limbeck.models.known import computes_as_made
from limbeck.models.session import Session
from limbeck.models.tokenizers import has_template, load_tokenizer
from limbeck.models.torch_session import TorchSession, image_inputs
from limbeck.models.vision.configuration import image_format
from limbeck.models.vocabulary import as_token_ids
from limbeck.models.weight_files import count_weight_bytes
from limbeck.quantization.formats.base import Format, QuantizedFormat
from limbeck.quantization.formats.floats import Float32
from limbeck.runtimes.architecture import format_name
from limbeck.runtimes.base import LoadedModel, Runtime
from limbeck.runtimes.bundle import BUNDLE, Bundle, write_bundle
from limbeck.runtimes.chat import Chat, TextCodec
from limbeck.runtimes.greedy import GreedyAnswerer
from limbeck.sizing.parameters import size_model

UNLIMITED_TOKENS = 1 << 30


@final
class TransformersRuntime(Runtime):
    """PyTorch and transformers; a bundle is the checkpoint with a `bundle.json`."""

    name: ClassVar[str] = "transformers"
    architectures: ClassVar[frozenset[str] | Literal["any"]] = "any"

    def __init__(self, *, precision: Precision = "float32") -> None:
        self.precision = precision

    @override
    def computing_in(self, precision: Precision, *, place: str | Path) -> "TransformersRuntime":
        folder = Path(place)
        if (folder / BUNDLE).is_file() or read_number_format(folder) is not None:
            raise computes_as_made(place, precision)
        return TransformersRuntime(precision=precision)

    @override
    def supports(self, number_format: Format) -> bool:
        return isinstance(number_format, Float32 | QuantizedFormat)

    @override
    def write(self, checkpoint: Path, folder: Path, *, weights: str = "format") -> Bundle:
        assert weights in self.weights
        model = self.open_model(checkpoint, num_threads=1)
        open_chat(checkpoint, model=model.model)
        shutil.copytree(
            checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST)
        )
        if not has_template(folder):
            load_tokenizer(checkpoint).save_pretrained(folder)
        size = model.size()
        bundle = Bundle(
            runtime=self.name,
            format=format_name(checkpoint),
            architecture=model.model.config.model_type,
            parameters=size.parameters,
            active_parameters=size.active_parameters,
            max_tokens=model.max_tokens,
        )
        write_bundle(folder, bundle)
        return bundle

    @override
    def open_model(self, folder: Path, *, num_threads: int) -> "TorchModel":
        model = load_model(folder, dtype=getattr(torch, self.precision))
        return TorchModel(model, weight_bytes=count_weight_bytes(folder), num_threads=num_threads)

    @override
    def read(self, folder: Path, *, num_threads: int) -> Answerer:
        model = self.open_model(folder, num_threads=num_threads)
        return GreedyAnswerer(model, chat=open_chat(folder, model=model.model))


def count_active(folder: Path) -> int:
    """The parameters of a checkpoint that one token's computation reads, without its weights.

    Raises:
        CheckpointError: the config is damaged, or of no causal language model.
    """
    return size_model(open_config(folder), context_tokens=1).active_parameters


@final
class TransformersCodec(TextCodec):
    """A transformers tokenizer, whatever its file format."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @override
    def encode(self, text: str) -> list[int]:
        return encode_texts(self._tokenizer, [text])[0]

    @override
    def decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


def open_chat(folder: Path, *, model: PreTrainedModel) -> Chat:
    """The chat of a checkpoint's own tokenizer.

    Raises:
        CheckpointError: the tokenizer is damaged.
    """
    tokenizer = load_tokenizer(folder)
    generation = model.generation_config
    ends = as_token_ids(None if generation is None else generation.eos_token_id)
    images = image_format(model.config)
    return Chat(
        chat_template_of(tokenizer),
        TransformersCodec(tokenizer),
        end_ids=end_token_ids(tokenizer, listed=ends),
        tokens_per_image=0 if images is None else images.num_tokens,
    )


@final
class TorchModel(LoadedModel):
    """A transformers model."""

    def __init__(self, model: PreTrainedModel, *, weight_bytes: int, num_threads: int) -> None:
        self.model = model
        text = model.config.get_text_config()
        # Configs without positions, as of some recurrent models, lack the field.
        self.max_tokens = getattr(text, "max_position_embeddings", UNLIMITED_TOKENS)
        self._weight_bytes = weight_bytes
        self._num_threads = num_threads

    @override
    def open_session(self, *, num_slots: int, max_prefix_bytes: int = 0) -> Session[np.ndarray]:
        torch.set_num_threads(self._num_threads)
        return NumpySession(TorchSession(self.model, num_slots=num_slots))

    @override
    @torch.inference_mode()
    def compute_logits(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        """Causality hides the padding, which is on the right."""
        torch.set_num_threads(self._num_threads)
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        output = self.model(
            input_ids=ids.to(self.model.device),
            use_cache=False,
            logits_to_keep=ids.shape[1] - start,
            **image_inputs(self.model, images),
        )
        logits = output.logits.float().cpu()
        return [logits[row, : len(tokens) - start].numpy() for row, tokens in enumerate(rows)]

    @override
    def size(self) -> Size:
        """Counts of the model as its config describes it, bytes of its weight files."""
        counted = size_model(self.model.config, context_tokens=1)
        return Size(counted.parameters, counted.active_parameters, self._weight_bytes)

    @override
    def num_threads(self) -> int:
        return self._num_threads


@final
class NumpySession(Session[np.ndarray]):
    """A torch session whose logits come as numpy arrays."""

    def __init__(self, session: TorchSession) -> None:
        super().__init__(num_slots=session.num_slots)
        self._session = session

    @override
    @torch.inference_mode()
    def _prefill(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        images: Sequence[Path],
        num_copies: int,
        owners: Sequence[str],
    ) -> Float[np.ndarray, "rows vocab"]:
        return _to_numpy(self._session.admit(prompts, images=images, num_copies=num_copies).logits)

    @override
    @torch.inference_mode()
    def _decode(self, tokens: Sequence[int]) -> Float[np.ndarray, "rows vocab"]:
        return _to_numpy(self._session.step(tokens))

    @override
    @torch.inference_mode()
    def _keep_rows(self, rows: Sequence[int]) -> None:
        slots = self._session.slots
        self._session.evict(set(slots) - {slots[row] for row in rows})


def _to_numpy(logits: Float[Tensor, "rows vocab"]) -> Float[np.ndarray, "rows vocab"]:
    return logits.cpu().numpy()
