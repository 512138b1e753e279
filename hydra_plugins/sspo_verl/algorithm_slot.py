"""Hydra plugin that makes `algorithm=sspo` work on verl's own trainer configs.

In verl's `ppo_trainer.yaml`, `algorithm` is a plain node and cannot be chosen from a config group. This plugin serves
verl's own file with one more entry in its defaults list, the slot, and puts this package's `algorithm/*.yaml` after
everything else on the search path (see `_search_path` for where, and when not). Nothing is copied, so it follows the
installed verl; without `algorithm=` the composed config is verl's own. `ppo_megatron_trainer` builds on `ppo_trainer`
and gets the slot from it.

Every Hydra application in the environment imports this module: it imports nothing but Hydra and OmegaConf.
"""

from hydra._internal.core_plugins import importlib_resources_config_source
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from hydra_plugins.sspo_verl import _search_path
from hydra_plugins.sspo_verl._folders import stored_algorithms, verl_config_dir

TRAINER_CONFIG = "ppo_trainer.yaml"


class AlgorithmSlot(ConfigSource):
    """verl's trainer config with the slot `algorithm` at the end of its defaults list.

    An empty list of choices adds nothing to the composed config and is not a choice: an application's own
    `+algorithm=x` or `- algorithm: x` does not collide with it. Only `algorithm=` and `override algorithm:` fill it.
    """

    @staticmethod
    def scheme() -> str:
        return _search_path.SLOT_SCHEME

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
        assert folder is not None  # otherwise it would not be on the search path
        text = (folder / TRAINER_CONFIG).read_text(encoding="utf-8")
        config = OmegaConf.load(folder / TRAINER_CONFIG)
        config.defaults.append({"algorithm": []})
        return ConfigResult(
            config=config,
            path=self.full_path(),
            provider=self.provider,
            header=self._get_header_dict(text),
        )


class UnlistedAlgorithms(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """This package's algorithms if the application has its own group `algorithm`: found by name, but never listed."""

    @staticmethod
    def scheme() -> str:
        return _search_path.UNLISTED_SCHEME

    def is_config(self, config_path: str) -> bool:
        return super().is_config(config_path) and self._normalize_file_name(config_path) not in stored_algorithms()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []


class SSPOSearchPath(SearchPathPlugin):
    """Keeps this package's entries on the search path in place, whatever is added to it later."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        _search_path.keep_arranged(search_path)
