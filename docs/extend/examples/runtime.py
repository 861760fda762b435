"""Half: torch with weights in bfloat16, a bundle of half the bytes."""

import shutil
from pathlib import Path
from typing import ClassVar, Literal, final

import torch
from typing_extensions import override

from limbeck.contracts.answerer import Answerer
from limbeck.contracts.artifacts import MANIFEST
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats.base import Format
from limbeck.quantization.formats.floats import Float32
from limbeck.runtimes.base import Runtime
from limbeck.runtimes.bundle import Bundle, write_bundle
from limbeck.runtimes.greedy import GreedyAnswerer
from limbeck.runtimes.transformers import TorchModel, open_chat


@final
class HalfRuntime(Runtime):
    """PyTorch in bfloat16: half of float32's bytes, for processors that multiply it."""

    name: ClassVar[str] = "half"
    architectures: ClassVar[frozenset[str] | Literal["any"]] = "any"

    @override
    def supports(self, number_format: Format) -> bool:
        return isinstance(number_format, Float32)

    @override
    def write(self, checkpoint: Path, folder: Path, *, weights: str = "format") -> Bundle:
        assert weights in self.weights
        model = load_model(checkpoint).to(torch.bfloat16)
        shutil.copytree(
            checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST)
        )
        save_checkpoint(model, tokenizer=load_tokenizer(checkpoint), folder=folder)
        opened = self.open_model(folder, num_threads=1)
        size = opened.size()
        bundle = Bundle(
            runtime=self.name,
            format="bfloat16",
            architecture=model.config.model_type,
            parameters=size.parameters,
            active_parameters=size.active_parameters,
            max_tokens=opened.max_tokens,
        )
        write_bundle(folder, bundle)
        return bundle

    @override
    def open_model(self, folder: Path, *, num_threads: int) -> TorchModel:
        weight_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        model = load_model(folder, dtype="auto")
        return TorchModel(model, weight_bytes=weight_bytes, num_threads=num_threads)

    @override
    def read(self, folder: Path, *, num_threads: int) -> Answerer:
        opened = self.open_model(folder, num_threads=num_threads)
        return GreedyAnswerer(opened, chat=open_chat(folder, model=opened.model))
