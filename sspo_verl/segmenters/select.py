"""Selects the segmenter that the settings name, from the registry or from a user's function."""

import importlib
import importlib.util
import os
import re
import sys
from functools import cache
from typing import cast

import torch
from torch import Tensor

from sspo_verl.segmenters.fixed import cut_long
from sspo_verl.segmenters.registry import SEGMENTERS, Factory, Make, Segmenter, SegmentSettings
from sspo_verl.segments import renumbered

PACKAGE, FILE = "pkg://", "file://"
# Settings that some segmenters use and the others ignore: what each is, with an example.
OF_ONE_SEGMENTER = {
    "segment_tokens": "the number of tokens per segment, such as 32",
    "segment_entropy_share": "the share of tokens that begin a segment, such as 0.1",
    "segment_regex": "a pattern of one character, such as '[;:]'",
}
EXAMPLES = OF_ONE_SEGMENTER | {"segment_max_tokens": "the maximum number of tokens per segment, such as 64"}
MOST_TOKENS = 2**31 - 1  # limit of a setting: more than any response has, and the sum of two fits in int64
OURS = "sspo_verl."  # modules whose segmenters are covered by our tests
RAISED = (Exception, SystemExit)  # what a user's code may raise


def segmenter_of(tokenizer, settings: SegmentSettings, device: torch.device | str = "cpu") -> Segmenter:
    """Build the segmenter of `settings` for a tokenizer, including the limit `segment_max_tokens` if that is set.

    Call it once per tokenizer and device: it builds the tables over the vocabulary, on the device. Raises ValueError,
    naming the setting, for settings that `check` refuses, for a vocabulary that the segmenter cannot handle, and for a
    user's segmenter that does not return segment ids.
    """
    check(settings)
    factory = factory_of(settings.segmenter)
    ours = (getattr(factory.make, "__module__", None) or "").startswith(OURS)
    with torch.device(device):
        cut = factory.make(tokenizer, settings) if ours else _made(factory, tokenizer, settings)
    if not ours:
        cut = _of_user(cut, settings.segmenter)
        _try(cut, settings.segmenter, factory.needs_entropy, device)
    longest = settings.segment_max_tokens
    if longest is None:
        return cut
    return lambda token_ids, response_mask, entropy: cut_long(cut(token_ids, response_mask, entropy), longest)


def check(settings: SegmentSettings) -> None:
    """Raise ValueError, naming the setting and the fix, for settings that are wrong or belong to another segmenter."""
    for name in ("segment_tokens", "segment_max_tokens"):
        value = getattr(settings, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} must be an integer, 1 or more, or null, got {value!r}.")
        if value is not None and value > MOST_TOKENS:
            raise ValueError(f"{name} must be at most {MOST_TOKENS}, got {value}. Set null for no limit.")
    share = settings.segment_entropy_share
    if share is not None and not (isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1):
        raise ValueError(f"segment_entropy_share must be over 0 and at most 1 (0.1 for the top 10 %), got {share!r}.")
    if settings.segment_regex is not None:
        try:
            re.compile(settings.segment_regex)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"segment_regex={settings.segment_regex!r} is not a regular expression: {error}."
            ) from error
    uses = factory_of(settings.segmenter).uses
    for name in OF_ONE_SEGMENTER:
        given = getattr(settings, name) is not None
        if given and name not in uses:
            users = " or ".join(f"segmenter={known}" for known, factory in SEGMENTERS.items() if name in factory.uses)
            raise ValueError(
                f"{name}={getattr(settings, name)} has no effect with segmenter={settings.segmenter}. Set {name}=null"
                f"{f', or {users}' if users else ''}."
            )
    for name in uses:
        if getattr(settings, name) is None:
            raise ValueError(f"{name} must be set with segmenter={settings.segmenter}: {EXAMPLES[name]}.")


def _made(factory: Factory, tokenizer, settings: SegmentSettings):
    """What a user's factory returns."""
    try:
        return factory.make(tokenizer, settings)
    except RAISED as error:
        raise ValueError(
            f"segmenter={settings.segmenter}: it must be a function (tokenizer, settings) -> segmenter "
            f"(docs/segments.md has an example), but it raises {type(error).__name__}: {error}."
        ) from error


def _of_user(cut, name: str) -> Segmenter:
    """Wrap a user's segmenter: check its result without synchronizing with the device, and renumber the ids."""
    signature = "a function (token_ids, response_mask, entropy) -> segment_ids (docs/segments.md has an example)"
    if not callable(cut):
        raise ValueError(f"segmenter={name}: it returns {cut!r}, not {signature}. Does it return its function?")

    def cut_and_check(token_ids, response_mask, entropy):
        ids = cut(token_ids, response_mask, entropy)
        wanted = f"a tensor of int64, {list(response_mask.shape)}, on {response_mask.device}"
        if not isinstance(ids, Tensor):
            raise ValueError(f"segmenter={name}: it must return {wanted}, but returns a {type(ids).__name__}.")
        same = ids.shape == response_mask.shape and ids.device == response_mask.device
        if ids.dtype != torch.int64 or not same:
            found = f"{str(ids.dtype).removeprefix('torch.')}, {list(ids.shape)}, on {ids.device}"
            raise ValueError(f"segmenter={name}: it must return {wanted}, but returns {found}.")
        return renumbered(ids, response_mask)

    return cut_and_check


def _try(cut: Segmenter, name: str, needs_entropy: bool, device: torch.device | str) -> None:
    """Try the segmenter on a small batch, so that it fails before anything expensive starts."""
    mask = torch.tensor([[1, 1, 1], [1, 0, 1]], device=device)
    entropy = torch.ones(mask.shape, device=device) if needs_entropy else None
    try:
        cut(torch.zeros_like(mask), mask, entropy)
    except RAISED as error:
        if isinstance(error, ValueError) and str(error).startswith(f"segmenter={name}: "):
            raise
        raise ValueError(
            f"segmenter={name}: it cannot cut a batch of 2 responses of 3 tokens ({type(error).__name__}: {error})."
        ) from error


def factory_of(name: str) -> Factory:
    """The factory for a registered name, `pkg://package.module:function` or `/path/file.py:function`.

    Raises ValueError, listing the known names or saying why the function cannot be loaded.
    """
    if isinstance(name, str) and name in SEGMENTERS:
        return SEGMENTERS[name]
    place, colon, function = str(name).rpartition(":")
    if not colon or not function.isidentifier():
        raise ValueError(
            f"segmenter={name} is unknown. Available: {', '.join(SEGMENTERS)}; name your own as "
            "pkg://package.module:function or /path/to/file.py:function."
        )
    found = getattr(_module(place, name), function, None)
    if not callable(found):
        raise ValueError(f"segmenter={name}: {place} has no function {function!r}.")
    return next((factory for factory in SEGMENTERS.values() if factory.make is found), None) or Factory(
        cast(Make, found)
    )


def _module(place: str, name: str):
    try:
        if place.startswith(PACKAGE):
            return importlib.import_module(place.removeprefix(PACKAGE).replace("/", "."))
        path = os.path.expanduser(place.removeprefix(FILE))
        if not os.path.isabs(path):
            raise ValueError("write it as an absolute path: a worker may run in another folder")
        return _of_file(os.path.normpath(path))
    except RAISED as error:
        raise ValueError(f"segmenter={name}: {place} cannot be loaded ({type(error).__name__}: {error}).") from error


@cache
def _of_file(path: str):
    """Load a file as a module, once per process."""
    name = f"sspo_segmenter_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks up the module that it is defined in
    spec.loader.exec_module(module)
    return module
