"""Store of responses on disk: one JSON line each, written as they finish, and read again when a run resumes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sspo_verl.tools import files
from sspo_verl.tools.evaluate.problems import Index
from sspo_verl.tools.evaluate.prompts import Prompt

RESPONSES, SETTINGS = "responses.jsonl", "settings.json"
Key = tuple[str, Index, int]  # set, index of the problem, sample


@dataclass(frozen=True)
class Response:
    """A stored response. `sspo analyze` can read these lines directly: output, score and data_source."""

    set: str
    index: Index
    sample: int
    data_source: str
    prompt: str
    output: str
    tokens: int
    finished: bool  # false: truncated at the limit
    answer: str | None
    status: str
    correct: bool
    score: float
    gold: str

    @property
    def key(self) -> Key:
        return self.set, self.index, self.sample


NAMES = {field.name for field in fields(Response)}


class Store:
    """Context manager for the folder of one model's responses, locked by one process at a time."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        self.responses: dict[Key, Response] = {}
        self._file: Any = None

    def check(self, prompts: Iterable[Prompt]) -> None:
        """Check that the stored responses match these settings and problems. Changes nothing. Raises ValueError."""
        self._check_settings()
        responses, _ = self._read()
        wanted = {prompt.key: prompt for prompt in prompts}
        for response in responses:
            prompt = wanted.get((response.set, response.index))
            if prompt and (prompt.text, prompt.problem.gold) != (response.prompt, response.gold):
                raise ValueError(
                    f"{self.folder / RESPONSES} has a response to {response.set}, problem {response.index}, whose "
                    f"prompt or gold answer differs from the data's now. {_WAY_OUT}"
                )

    def __enter__(self) -> Store:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.folder / RESPONSES, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(f"Another `sspo eval` is using {self.folder}. Wait for it, or stop it.") from None
        try:
            self._check_settings()
            responses, complete = self._read()
            file.truncate(complete)  # drops a last line that a kill left incomplete
        except BaseException:
            file.close()
            raise
        self.responses = {response.key: response for response in responses}
        if not (self.folder / SETTINGS).exists():
            files.write(self.folder / SETTINGS, json.dumps(self.settings, indent=1) + "\n")
        self._file = file
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, responses: Iterable[Response]) -> None:
        lines = []
        for response in responses:
            if response.key in self.responses:
                raise ValueError(f"{response.key} was generated twice")
            self.responses[response.key] = response
            lines.append(json.dumps(asdict(response), ensure_ascii=False) + "\n")
        # A lone surrogate, which a byte-level model can generate, is not UTF-8.
        self._file.write("".join(lines).encode("utf-8", errors="replace"))
        self._file.flush()

    def _check_settings(self) -> None:
        path = self.folder / SETTINGS
        if not path.exists():
            return
        there = files.read_json(path, "choose another --out, or remove that folder")
        names = sorted(there.keys() | self.settings.keys())
        if wrong := [name for name in names if there.get(name) != self.settings.get(name)]:
            said = ", ".join(f"{name} {there.get(name)} there, {self.settings.get(name)} now" for name in wrong)
            raise ValueError(f"{self.folder} has responses made with different settings: {said}. {_WAY_OUT}")

    def _read(self) -> tuple[list[Response], int]:
        """(responses, number of bytes of the file that are complete lines)."""
        path = self.folder / RESPONSES
        if not path.exists():
            return [], 0
        content = path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete and not (self.folder / SETTINGS).exists():
            raise ValueError(f"{path} exists without {SETTINGS}, so its settings are unknown. {_WAY_OUT}")
        found: dict[Key, Response] = {}
        for number, line in enumerate(content[:complete].splitlines(), start=1):
            try:
                value = json.loads(line)
                response = Response(**{name: value[name] for name in NAMES})
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number} is not a response ({error!r}). {_WAY_OUT}") from error
            if response.key in found:
                raise ValueError(f"{path}, line {number}: {response.key} occurs twice. {_WAY_OUT}")
            found[response.key] = response
        return list(found.values()), complete


_WAY_OUT = "Choose another --out, or remove that folder."
