"""Places this package's configs on Hydra's search path, or leaves them out.

- An application that has nothing to do with verl gets none of them.
- The slot is directly before verl's own config folder, wherever that is on the path: a `ppo_trainer.yaml` that would
  have been read instead of verl's still is. There is no slot if a config of the application already has its own
  `algorithm` entry.
- The algorithms are last, so that every file of the application takes precedence.
"""

from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement

from hydra_plugins.sspo_verl import _folders

PROVIDER = "sspo_verl"
SLOT_SCHEME = "sspo-verl"
UNLISTED_SCHEME = "sspo-verl-unlisted"
SLOT = f"{SLOT_SCHEME}://verl"
ALGORITHMS = "pkg://sspo_verl.conf"
UNLISTED_ALGORITHMS = f"{UNLISTED_SCHEME}://sspo_verl.conf"


def arranged(elements: list[SearchPathElement]) -> list[SearchPathElement]:
    """A complete search path (its last element is Hydra's schema) with this package's entries, replacing older ones."""
    elements = [element for element in elements if element.provider != PROVIDER]
    verls = _folders.verl_config_dir()
    if verls is None:
        return elements
    folders = [None if element.provider == "hydra" else _folders.folder_of(element.path) for element in elements]
    others = [folder for folder in folders if folder not in (None, verls)]
    if verls not in folders and not any(map(_folders.builds_on_verl, others)):
        return elements

    own_group = bool(_folders.stored_algorithms()) or any(map(_folders.own_algorithms, others))
    algorithms = UNLISTED_ALGORITHMS if own_group else ALGORITHMS
    elements.insert(len(elements) - 1, SearchPathElement(PROVIDER, algorithms))
    if verls in folders and not _folders.stored_algorithms() and not any(map(_folders.fills_slot, others)):
        elements.insert(folders.index(verls), SearchPathElement(PROVIDER, SLOT))
    return elements


class _Arranged(list):
    """The elements of a search path, rearranged when one is added.

    Hydra lets a plugin change the search path before `--config-dir` and `hydra.searchpath` are on it. Both are added
    through these two methods, on this list or a copy of it.
    """

    def append(self, element: SearchPathElement) -> None:
        super().append(element)
        self._arrange()

    def insert(self, index, element: SearchPathElement) -> None:
        super().insert(index, element)
        self._arrange()

    def _arrange(self) -> None:
        if self[-1].provider == "schema":  # complete
            self[:] = arranged(self)


def keep_arranged(search_path: ConfigSearchPath) -> None:
    """From now on, keep this package's entries on search_path where `arranged` puts them."""
    search_path.config_search_path = _Arranged(search_path.get_path())  # type: ignore[attr-defined]
