"""A model directory, read and checked: `config.json`, `tokenizer.json`, `model.safetensors`.

Nothing in a directory is executed. A digest that is given is compared before anything is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from engine.runtimes.artifacts import ArtifactDiffers, ArtifactRefused, read_artifact
from engine.runtimes.language.builtin import BUILTIN, builtin_directory
from engine.runtimes.language.config import ModelConfig, parameter_shapes
from engine.runtimes.language.tokenizer import Tokenizer, TokenizerFile

CONFIG_FILE: Final = "config.json"
TOKENIZER_FILE: Final = "tokenizer.json"
WEIGHTS_FILE: Final = "model.safetensors"

Parsed = TypeVar("Parsed")


class ModelRefused(ArtifactRefused):
    """The directory holds no model that this code can run; says which file and why."""


class LanguageModel(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt, ready to be computed with."""

    config: ModelConfig
    tokenizer: Tokenizer
    parameters: Mapping[str, NDArray[np.float32]]
    """As `parameter_shapes` names them."""


def load_model(directory: Path, *, sha256: str | None = None) -> LanguageModel:
    """The model in `directory`, whose digest (as `describe_artifact` takes it) is `sha256`, if that
    is given: of the bytes that were read, which are read once. Raises ArtifactRefused."""
    digest, files = read_artifact(directory, kept=(CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE))
    if sha256 is not None and digest != sha256.lower():
        raise ArtifactDiffers(f"SHA-256 {digest}, expected was {sha256[:64]}")
    config = _parsed(files, CONFIG_FILE, ModelConfig)
    file = _parsed(files, TOKENIZER_FILE, TokenizerFile)
    try:
        tokenizer = Tokenizer(file.merges)
    except ValueError as error:
        raise ModelRefused(f"{TOKENIZER_FILE}: {error}") from error
    if tokenizer.vocabulary != config.vocabulary:
        raise ModelRefused(
            f"{TOKENIZER_FILE}: {tokenizer.vocabulary} tokens, the network has {config.vocabulary}"
        )
    parameters = _parameters(files, config)
    return LanguageModel(config=config, tokenizer=tokenizer, parameters=parameters)


def load_builtin(name: str) -> LanguageModel:
    """Raises BuiltinUnknown, and ArtifactRefused if its files are not those that were released."""
    return load_model(builtin_directory(name), sha256=BUILTIN[name].sha256)


def save_model(
    directory: Path,
    config: ModelConfig,
    merges: tuple[tuple[int, int], ...],
    parameters: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write the three files; weights as half-precision numbers."""
    directory.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.encode(config)
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    (directory / TOKENIZER_FILE).write_bytes(
        msgspec.json.encode(TokenizerFile(merges=merges)) + b"\n"
    )
    halves = {name: array.astype(np.float16) for name, array in parameters.items()}
    (directory / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(halves))


def _parsed(files: Mapping[str, bytes], name: str, type_: type[Parsed]) -> Parsed:
    try:
        return msgspec.json.decode(_found(files, name), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{name}: {error}") from error


def _parameters(files: Mapping[str, bytes], config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    try:
        stored = safetensors.numpy.load(_found(files, WEIGHTS_FILE))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelRefused(f"{WEIGHTS_FILE}: {error}") from error
    shapes = parameter_shapes(config)
    if {name: array.shape for name, array in stored.items()} != shapes:
        raise ModelRefused(f"{WEIGHTS_FILE}: other tensors than {CONFIG_FILE} tells of")
    parameters = {name: array.astype(np.float32) for name, array in stored.items()}
    if not all(np.isfinite(array).all() for array in parameters.values()):
        raise ModelRefused(f"{WEIGHTS_FILE}: numbers that are not finite")
    return parameters


def _found(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise ModelRefused(f"{name}: is missing")
    return files[name]
