"""Metric rows as a training with the diagnostics on writes them: made up, but of the right shape and size."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from sspo_verl.metrics.names import LENGTHS, METRICS, PREFIX, UPDATES, group_names
from sspo_verl.metrics.warnings import SIGNS

ALGORITHMS = ("sspo", "sspo_no_entropy_clip", "grpo", "gspo")
OWN_CLIP = {"sspo": 0.002, "sspo_no_entropy_clip": 0.004, "grpo": 0.001, "gspo": 0.3}
PACE = {"sspo": 7.0, "sspo_no_entropy_clip": 8.0, "grpo": 9.0, "gspo": 12.0}
LOSS_MODE = {"grpo": "vanilla", "gspo": "gspo"}


def rows(
    algorithm: str = "sspo", seed: int = 0, steps: int = 30, diagnostics: bool = True
) -> dict[int, dict[str, float]]:
    noise = random.Random(f"{algorithm} {seed}")

    def near(value: float, spread: float = 0.1) -> float:
        return value * (1 + spread * noise.uniform(-1, 1))

    rows_by_step: dict[int, dict[str, float]] = {}
    for step in range(steps + 1):
        learnt = 1 - math.exp(-step / near(PACE[algorithm], 0.2))
        row = rows_by_step.setdefault(step, {})
        if step % 10 == 0 or step == steps:
            row["val-core/sums/acc/mean@1"] = min(0.15 + 0.8 * learnt * near(1, 0.05), 1.0)
            row["val-aux/sums/reward/mean@1"] = 0.5
        if step == 0:
            continue
        entropy = 0.32 - 0.1 * learnt + near(0.01)
        clipped = near(OWN_CLIP[algorithm] * (0.2 + learnt), 0.4)
        row |= {
            "critic/score/mean": 0.3 + 0.65 * learnt * near(1, 0.05),
            "actor/entropy": entropy,
            "actor/pg_clipfrac": clipped,
            "actor/ppo_kl": near(1e-3, 0.8) - 5e-4,
            "actor/grad_norm": near(0.3, 0.5),
            "response_length/mean": near(37, 0.02),
            "response_length/clip_ratio": near(0.01, 0.9),
            "timing_s/step": near(4.4, 0.15),
            "training/rollout_probs_diff_mean": near(3e-7),
        }
        if diagnostics:
            row |= diagnosed(algorithm, step, entropy, clipped, near)
    return rows_by_step


def diagnosed(algorithm: str, step: int, entropy: float, clipped: float, near) -> dict[str, float]:
    """Every name of METRICS, but for the band of high entropy at some steps: nothing was in it."""
    sspo = clipped if algorithm.startswith("sspo") else near(0.002, 0.4)
    row = {
        PREFIX + "token_entropy": entropy,
        PREFIX + "tokens_per_segment": near(5.3),
        PREFIX + "segments_per_response": 7.0,
    }
    for unit in ("token", "segment"):
        row |= {
            f"{PREFIX}{unit}_clipfrac/{side}": sspo * part for side, part in (("all", 1), ("low", 0.3), ("high", 0.7))
        }
        for band, part in (("low", 0.4), ("mid", 1.2), ("high", 2.0)):
            of = {"all": part, "low": 0.3 * part, "high": 0.7 * part}
            row |= {f"{PREFIX}{unit}_clipfrac/band_{band}/{side}": sspo * share for side, share in of.items()}
    row[PREFIX + "counterfactual/grpo_clipfrac"] = clipped if algorithm == "grpo" else near(0.001, 0.6)
    row[PREFIX + "counterfactual/gspo_clipfrac"] = clipped if algorithm == "gspo" else near(0.35, 0.2)
    row[PREFIX + "counterfactual/gspo_wide_clipfrac"] = near(0.0002, 0.5)
    for clipping, share in (("sspo", sspo), ("grpo", 0.001), ("gspo", 0.35), ("gspo_wide", 0.0002)):
        for place, name in enumerate(group_names(LENGTHS)):
            row[f"{PREFIX}clipfrac_by_length/{clipping}/{name}"] = near(share / (1 + place), 0.3)
        for place, name in enumerate(group_names(UPDATES)):
            row[f"{PREFIX}clipfrac_by_update/{clipping}/{name}"] = near(share * place, 0.3)
    row |= {f"{PREFIX}tokens_by_length/{name}": 0.2 for name in group_names(LENGTHS)}
    row |= {f"{PREFIX}entropy_threshold/{side}": near(level) for side, level in (("low", 0.1), ("high", 0.9))}
    row |= {PREFIX + "single_segment_frac": 0.0, PREFIX + "max_negative_weight": near(1.3)}
    low = min(0.55 + 0.005 * step, 0.9)
    row |= {
        PREFIX + f"entropy_band/{band}": v
        for band, v in (("low", low), ("mid", (1 - low) / 3), ("high", (1 - low) / 1.5))
    }
    spread = {
        "min": 0.0,
        "p05": 0.02,
        "p25": 0.08,
        "p50": near(0.3),
        "mean": 0.5,
        "p75": near(0.8),
        "p95": near(1.4),
        "max": 2.1,
    }
    row |= {PREFIX + f"segment_entropy/{name}": v for name, v in spread.items()}
    for name, middle in (
        ("ratio", near(1.0, 0.002)),
        ("lower_bound", near(0.75, 0.01)),
        ("upper_bound", near(1.55, 0.02)),
    ):
        row |= {
            PREFIX + f"{name}/{of}": v for of, v in (("mean", middle), ("min", 0.7 * middle), ("max", 1.3 * middle))
        }
    row |= {
        PREFIX + name: 0.0
        for name in ("nonfinite/log_ratio", "nonfinite/entropy", "diagnostics_failed", "responses_missing")
    }
    seen = dict.fromkeys(SIGNS, False) | {"entropy": entropy < 0.24, "one_band": low > 0.65}
    row |= {PREFIX + f"warning/{name}": float(value) for name, value in seen.items()}
    assert row.keys() == METRICS.keys(), row.keys() ^ METRICS.keys()
    if step % 7 == 0:
        row = {name: value for name, value in row.items() if "band_high/" not in name}
    return row


def write(path: Path, rows_by_step: dict[int, dict[str, float]]) -> Path:
    """Write metrics as verl's file logger does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": step, "data": row}) + "\n" for step, row in rows_by_step.items()))
    return path


HOSTILE = "<b onclick=alert(1)>bold</b> \u202eright to left\u202c \0 \x1b[31m </script><script>alert(1)</script>\n"


def rollouts(folder: Path, steps: tuple[int, ...] = (1, 2, 3, 9), responses: int = 16, ratio: bool = True) -> Path:
    """verl's rollout dumps with dump_segments=3: of each response three segments of each band, and one more not listed.

    Every second one is correct; the first segment of the wrong ones is clipped, at the lower and the upper in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        rows = []
        for i in range(responses):
            row = {
                "input": f"prompt {i} <i>",
                "output": f"first {i}\nsecond\n{HOSTILE}the end",
                "score": float(i % 2),
                "step": step,
                "sspo_segments": 4,
                "sspo_segment_tokens": [3, 2, 9],
                "sspo_segment_entropy": [1.5, 0.75, 0.25],
                "sspo_segment_clip": [0 if i % 2 else (-1 if i % 4 else 1), 0, 0],
            }
            rows.append(row | ({"sspo_segment_ratio": [0.7123, 1.0, None]} if ratio else {}))
        (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def settings(algorithm: str, **more: object) -> dict[str, object]:
    """Write settings as the quickstart does."""
    sspo = algorithm.startswith("sspo")
    values: dict[str, object] = {
        "actor_rollout_ref.actor.policy_loss.loss_mode": LOSS_MODE.get(algorithm, "sspo"),
        "algorithm.adv_estimator": "sspo" if sspo else "grpo",
        "trainer.total_training_steps": 30,
    }
    if sspo:
        values["actor_rollout_ref.actor.policy_loss.entropy_clip"] = algorithm == "sspo"
    return values | more


def quickstart(folder: Path, algorithm: str = "sspo", seed: int = 0, steps: int = 30, **more: object) -> Path:
    """A run's folder as the quickstart leaves it."""
    write(folder / "attempts" / "1" / "metrics.jsonl", rows(algorithm, seed, steps))
    (folder / "settings.json").write_text(json.dumps(settings(algorithm, **more)))
    return folder
