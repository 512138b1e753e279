"""`algorithm=sspo` on verl's own trainer configs.

In verl's `ppo_trainer.yaml`, `algorithm` is a plain node and cannot be chosen from a config group. This serves verl's
own file with one more entry at the end of its defaults list, `algorithm: null`, and puts this package's
`algorithm/*.yaml` on the search path. Nothing is copied, so it follows the verl that is installed; without
`algorithm=` on the command line the composed config is verl's own. `ppo_megatron_trainer` builds on `ppo_trainer` and
has the slot through it.

Every Hydra application in the environment imports this module: it imports nothing but Hydra and OmegaConf.
"""

import importlib.util
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

PROVIDER = "sspo_verl"
SCHEME = "sspo-verl"
TRAINER_CONFIG = "ppo_trainer.yaml"


def verl_config_dir() -> Path | None:
    """Where verl keeps its trainer configs, found without importing verl; None where verl is not installed."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


class AlgorithmSlot(ConfigSource):
    """verl's trainer config with the slot `algorithm` at the end of its defaults list."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return verl_config_dir() is not None

    def is_group(self, config_path: str) -> bool:
        return not config_path

    def is_config(self, config_path: str) -> bool:
        return self._normalize_file_name(config_path) == TRAINER_CONFIG

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []  # verl's own source lists them

    def load_config(self, config_path: str) -> ConfigResult:
        folder = verl_config_dir()
        assert folder is not None  # Hydra asks `available` first
        config = OmegaConf.load(folder / TRAINER_CONFIG)
        config.defaults.append({"algorithm": None})
        return ConfigResult(
            config=config,
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header={"package": None},
        )


class SSPOSearchPath(SearchPathPlugin):
    """Puts the slot before verl's own configs, and the algorithms behind them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.prepend(PROVIDER, f"{SCHEME}://verl")
        search_path.append(PROVIDER, "pkg://sspo_verl.conf")
