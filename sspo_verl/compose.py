"""A recipe as `main_ppo` will compose it, without verl."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def composed(
    folder: Path, recipe: str, overrides: Sequence[str], environment: Mapping[str, str] | None = None
) -> DictConfig:
    """The configuration, with its interpolations resolved.

    environment: variables that the recipe reads with oc.env, besides those of this process.
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
        raise ValueError(f"Hydra does not accept these settings: {error}") from error
    return config


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
