"""The GGUF runtime: a bundle of one file for llama.cpp, which also answers from it here."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, final

from typing_extensions import override

from limbeck.contracts.answerer import Answerer, Size
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.parity import Tolerance
from limbeck.models.gguf.header import Header, read_header
from limbeck.quantization.formats.base import Format
from limbeck.quantization.formats.floats import Float32
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.two_bits import Ternary
from limbeck.runtimes.base import ArchitectureCheck, FormatCheck, Runtime, TokenizerCheck
from limbeck.runtimes.bundle import BUNDLE, Bundle, read_bundle
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.gguf.families import FAMILIES, GELU
from limbeck.runtimes.gguf.limits import check_format, check_model, check_tokenizer
from limbeck.runtimes.gguf.model import GgufFile, GgufModel
from limbeck.runtimes.greedy import GreedyAnswerer

MODEL = "model.gguf"
STORED_FORMATS: Mapping[str, str] = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "Q8_0": "int8",
    "Q4_0": "int4",
    "Q4_1": "int4",
    "TQ2_0": "ternary",
    "TQ1_0": "ternary",
    "Q4_K_M": "int4",
    "Q6_K": "int6",
}
"""The number format of a bundle, by llama.cpp's type of most of its matrices."""


def hash_header(header: Header) -> str:
    """SHA-256 of all before the first tensor, which a damaged byte would change without a word."""
    start = min((item.offset for item in header.tensors), default=0)
    with header.path.open("rb") as file:
        return hashlib.sha256(file.read(start)).hexdigest()


@final
class GgufRuntime(Runtime):
    """llama.cpp on a CPU; a bundle is one GGUF file, which other programs run, too."""

    name: ClassVar[str] = "gguf"
    architectures: ClassVar[frozenset[str] | Literal["any"]] = frozenset(FAMILIES)
    weights: ClassVar[Mapping[str, Tolerance | Literal["format"]]] = {
        "format": "format",
        "F32": "format",
        "F16": Tolerance(measure="mean_kl", limit=0.01),
        "BF16": Tolerance(measure="mean_kl", limit=0.05),
        "Q8_0": Tolerance(measure="mean_kl", limit=0.05),
        "Q4_1": Tolerance(measure="mean_kl", limit=1.0),
        "Q4_0": Tolerance(measure="mean_kl", limit=1.0),
        "Q6_K": Tolerance(measure="mean_kl", limit=0.05),
        "Q4_K_M": Tolerance(measure="mean_kl", limit=1.0),
        "TQ2_0": "format",
        "TQ1_0": "format",
    }
    # llama.cpp looks GELU up in a table from and to half precision. Measured: 5e-7.
    rounded_architectures: ClassVar[Mapping[str, Tolerance]] = {
        name: Tolerance(measure="mean_kl", limit=1e-4)
        for name, family in FAMILIES.items()
        if family.activation == GELU
    }
    check_architecture: ClassVar[ArchitectureCheck | None] = staticmethod(check_model)
    check_format: ClassVar[FormatCheck | None] = staticmethod(check_format)
    check_tokenizer: ClassVar[TokenizerCheck | None] = staticmethod(check_tokenizer)
    packages: ClassVar[tuple[str, ...]] = ("gguf", "xllamacpp")

    @override
    def supports(self, number_format: Format) -> bool:
        return isinstance(number_format, Float32 | Int8 | Int4 | Ternary)

    @override
    def write(self, checkpoint: Path, folder: Path, *, weights: str = "format") -> Bundle:
        from limbeck.runtimes.gguf.writer import write  # noqa: PLC0415  (torch and gguf)

        return write(checkpoint, folder, weights=weights)

    @override
    def open_model(self, folder: Path, *, num_threads: int) -> GgufModel:
        bundle = read_bundle(folder)
        path = folder / MODEL
        if not path.is_file():
            raise CheckpointError(f"{folder}: no {MODEL}; export the checkpoint again")
        header = read_header(path)
        if hash_header(header) != bundle.runtime_settings.get("header_sha256"):
            raise CheckpointError(
                f"{path}: is not the file that {BUNDLE} was written with (its header differs); "
                "export the checkpoint again"
            )
        size = Size(
            parameters=bundle.parameters,
            active_parameters=bundle.active_parameters,
            weight_bytes=path.stat().st_size,
        )
        return GgufModel(
            GgufFile(path), size=size, max_tokens=bundle.max_tokens, num_threads=num_threads
        )

    @override
    def read(self, folder: Path, *, num_threads: int) -> Answerer:
        model = self.open_model(folder, num_threads=num_threads)
        return GreedyAnswerer(model, chat=read_chat(folder))
