"""Recipes: where they are, the algorithms they can be run with, and the configuration that `main_ppo` will compose."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sspo_verl.tools.runs.settings import Settings, flatten

if TYPE_CHECKING:
    from omegaconf import DictConfig


def composed(
    folder: Path, recipe: str, overrides: Sequence[str], environment: Mapping[str, str] | None = None
) -> DictConfig:
    """The composed configuration, with interpolations resolved.

    environment: variables that the recipe reads with oc.env, in addition to this process's.
    Raises ValueError with Hydra's explanation.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with warnings.catch_warnings(), _variables(environment or {}):
            warnings.simplefilter("ignore")
            with initialize_config_dir(str(folder.resolve()), version_base=None):
                config = compose(recipe, overrides=list(overrides))
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        meant = _did_you_mean(error, folder, recipe, environment or {}) if overrides else ""
        raise ValueError(f"Hydra does not accept these settings: {error}{meant}") from error
    return config


def _did_you_mean(error: Exception, folder: Path, recipe: str, environment: Mapping[str, str]) -> str:
    """What to add to Hydra's explanation of a key that it does not know: the closest key in the recipe without
    overrides, or the key that is new."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException) or not cause.full_key:
        return ""
    parent, _, key = cause.full_key.rpartition(".")
    config = composed(folder, recipe, (), environment)
    beside = OmegaConf.select(config, parent) if parent else config
    if not isinstance(beside, DictConfig) or key in beside:
        return ""
    if near := difflib.get_close_matches(key, map(str, beside), n=1):
        return f"\nDid you mean {near[0]}?"
    return f"\n{parent} has no key {key}: only an override with + adds one (+{cause.full_key}=...)." if parent else ""


@contextmanager
def _variables(more: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def find_recipes(recipe: str) -> Path:
    """recipes/ of the checkout: next to the package if it is used in place, else below the current directory."""
    for folder in (Path(__file__).parents[3] / "recipes", Path.cwd() / "recipes"):
        if (folder / f"{recipe}.yaml").exists():
            return folder.resolve()
    raise ValueError(f"recipes/{recipe}.yaml is not here: run this from the top of a checkout of the project.")


ALGORITHMS = Path(__file__).parents[2] / "conf" / "algorithm"


def algorithms() -> list[str]:
    """The names that `algorithm=` accepts; each is also the `label` of its runs."""
    return sorted(file.stem for file in ALGORITHMS.glob("*.yaml"))


def algorithm_settings(name: str) -> Settings:
    """The settings of `algorithm=NAME`, flat."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(ALGORITHMS / f"{name}.yaml"))
    assert isinstance(config, dict)
    base = [algorithm_settings(other) for other in config.pop("defaults", [])]
    return {key: value for part in (*base, flatten(config)) for key, value in part.items()}
