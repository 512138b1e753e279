"""Resolves models named by the user to a folder in Hugging Face's layout, or to shards that have to be merged."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sspo_verl.tools.files import read_json, split

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
DESCRIBING = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")  # config and tokenizer
SHARDS = "model_world_size_*_rank_*.pt"
LORA = "lora_train_meta.json"  # verl writes it to actor/
LATEST = "latest_checkpointed_iteration.txt"  # verl writes the last complete checkpoint to it
# Folder names that do not identify the model.
NAMELESS = {"huggingface", "actor", "model", "checkpoints"}
CHUNK = 1 << 24


@dataclass(frozen=True)
class Model:
    name: str
    path: Path  # resolved from the user's argument
    hf: Path  # config and tokenizer; also the weights, unless shards is set
    shards: Path | None  # the folder with verl's FSDP shards, to be merged
    fingerprint: str  # of weights, config and tokenizer

    @property
    def length(self) -> int | None:
        return text_config(self.hf).get("max_position_embeddings")


def text_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json", "copy the model again")
    return config.get("text_config", config)


def resolve_all(arguments: tuple[str, ...]) -> list[Model]:
    """The models that the arguments (PATH or NAME=PATH) name, with unique names."""
    models = [resolve(argument) for argument in arguments]
    for number, model in enumerate(models):
        for other in models[:number]:
            if other.name == model.name:
                raise ValueError(
                    f"--model: {other.path} and {model.path} are both called {model.name}. Give names: NAME=PATH."
                )
    return models


def resolve(argument: str) -> Model:
    try:
        name, path = split(argument)
    except ValueError as error:
        raise ValueError(f"--model: {error}") from error
    if not path.is_dir():
        raise ValueError(
            f"--model: {path} is not a folder. A model is a folder in Hugging Face's layout or a checkpoint of verl "
            "(global_step_N, or the folder that holds them); download one from the hub first."
        )
    name = name or _name(path.resolve())
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or not name.strip("."):
        raise ValueError(f"--model: {name!r} cannot be a folder's name (letters, digits, ., _, +, -). Use NAME=PATH.")
    hf, shards = locate(path)
    _refuse_adapters(hf, shards)
    weights = sorted(shards.glob(SHARDS)) if shards else _matching(hf, WEIGHTS)
    return Model(name, path, hf, shards, fingerprint([*_matching(hf, DESCRIBING), *weights]))


def _name(path: Path) -> str:
    while path.name in NAMELESS and path.parent.name:
        path = path.parent
    return path.name


def locate(path: Path) -> tuple[Path, Path | None]:
    """(folder with config and tokenizer, folder with shards or None if the weights are next to the config)."""
    if (path / "config.json").is_file():
        if not _matching(path, WEIGHTS):
            shards = path.parent
            if path.name == "huggingface" and any(shards.glob(SHARDS)):
                return path, _whole(shards)
            raise ValueError(
                f"--model: {path} has a config.json but no weights ({', '.join(WEIGHTS)}). Copy them there."
            )
        return path, None
    actor = _actor(path)
    hf = actor / "huggingface"
    if not (hf / "config.json").is_file():
        raise ValueError(
            f"--model: {actor} has no huggingface/config.json, which verl's FSDP checkpoints have. "
            "Merge others (Megatron's) first: python -m verl.model_merger merge --help."
        )
    if _matching(hf, WEIGHTS):
        return hf, None
    return hf, _whole(actor)


def _refuse_adapters(hf: Path, shards: Path | None) -> None:
    """Refuse LoRA checkpoints. verl writes the adapters next to the base weights: vLLM cannot load those, and verl's
    merger omits the adapters, so the base model would be measured."""
    if shards is not None:
        found = [str(shards / LORA)] if (shards / LORA).is_file() else []
    else:
        found = [f"{name} in {file}" for file in hf.glob("*.safetensors") for name in _names(file) if ".lora_" in name]
    if found:
        raise ValueError(
            f"--model: the checkpoint is of a LoRA run, whose adapters are not merged into the weights ({found[0]}). "
            "Merge them into a folder in Hugging Face's layout first (each weight W becomes W + lora_alpha / r B A; "
            f"{LORA} has both numbers), and give that folder."
        )


def _names(file: Path) -> list[str]:
    """Names of the tensors in a file; empty if it cannot be read, which vLLM will report."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as weights:
            return list(weights.keys())
    except (SafetensorError, OSError):
        return []


def _actor(path: Path) -> Path:
    """The `actor` folder of a checkpoint: `path` itself, below global_step_N, or below the last of several."""
    if (path / "huggingface").is_dir() or any(path.glob(SHARDS)):
        return path
    if (path / "actor").is_dir():
        return path / "actor"
    steps = {
        int(match[1]): child
        for child in path.iterdir()
        if (match := re.fullmatch(r"global_step_(\d+)", child.name)) and (child / "actor").is_dir()
    }
    if not steps:
        raise ValueError(
            f"--model: {path} is neither a model (no config.json) nor a checkpoint of verl "
            "(no actor, no global_step_N)."
        )
    # verl names a checkpoint here once it is complete; a later folder may be half written.
    latest = path / LATEST
    named = latest.read_text().strip() if latest.is_file() else ""
    step = int(named) if named.isdigit() and int(named) in steps else max(steps)
    return steps[step] / "actor"


def _whole(actor: Path) -> Path:
    """`actor`, if it has all its shards; otherwise raises."""
    ranks: dict[int, set[int]] = {}
    for file in actor.glob(SHARDS):
        if match := re.fullmatch(r"model_world_size_(\d+)_rank_(\d+)\.pt", file.name):
            ranks.setdefault(int(match[1]), set()).add(int(match[2]))
    if not ranks:
        raise ValueError(f"--model: {actor} has no weights: neither in huggingface/ nor as FSDP shards ({SHARDS}).")
    if len(ranks) > 1:
        raise ValueError(f"--model: {actor} holds shards of runs with {' and '.join(map(str, sorted(ranks)))} ranks.")
    ((size, there),) = ranks.items()
    if missing := sorted(set(range(size)) - there):
        raise ValueError(f"--model: {actor} lacks the shards of {len(missing)} of {size} ranks (rank {missing[0]}).")
    return actor


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def fingerprint(files: list[Path]) -> str:
    """Hash of names and contents: the same for a copy of the model elsewhere, different for another in its place."""
    total = hashlib.sha256()
    for file in files:
        one = hashlib.sha256()
        with file.open("rb") as content:
            while chunk := content.read(CHUNK):
                one.update(chunk)
        total.update(f"{file.name} {one.hexdigest()}\n".encode())
    return total.hexdigest()[:16]
