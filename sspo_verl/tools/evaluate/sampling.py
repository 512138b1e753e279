"""Sampling settings: greedy, or sampled with a separate seed for each response."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    k: int  # responses per problem
    temperature: float  # 0 is greedy
    top_p: float
    max_tokens: int
    seed: int

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def describe(self) -> str:
        if self.greedy:
            how = "greedy, one response per problem"
        else:
            how = f"{self.k} sampled per problem (temperature {self.temperature:g}, top-p {self.top_p:g})"
            how += f", seed {self.seed}"
        return f"{how}, at most {self.max_tokens:,} tokens"

    def settings(self) -> dict[str, object]:
        """The settings that a response depends on. Not k: more samples can be added to existing ones."""
        if self.greedy:
            return {"temperature": 0.0, "max_tokens": self.max_tokens}
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }


def choose(
    k: int, greedy: bool, temperature: float | None, top_p: float | None, max_tokens: int, seed: int
) -> Sampling:
    """From the command line. Without --greedy and --temperature: greedy if k is 1, otherwise temperature 1."""
    if greedy and temperature:
        raise ValueError("--greedy and --temperature exclude each other.")
    if not greedy and temperature is None:
        greedy = k == 1 and top_p is None
    heat = 0.0 if greedy else 1.0 if temperature is None else temperature
    if heat == 0 and k > 1:
        raise ValueError(f"--k {k} greedy would be {k} times the same response. Set --temperature, or --k 1.")
    if heat == 0 and top_p is not None:
        raise ValueError("--top-p does not apply to greedy responses. Set --temperature, or leave it out.")
    return Sampling(k, heat, 1.0 if top_p is None else top_p, max_tokens, seed)


def seed_of(seed: int, set_name: str, index: int | str, sample: int) -> int:
    """The seed of one response, independent of the order of sampling and of interruptions."""
    digest = hashlib.sha256(f"{seed}/{set_name}/{index}/{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
