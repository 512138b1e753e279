"""`sspo analyze --suggest`: what it suggests clips the wished-for share, by the loss itself."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sspo_verl.divergence import binary_kl, total_variation
from sspo_verl.loss import sspo_token_terms
from sspo_verl.metrics.counts import observe
from sspo_verl.metrics.dump import records
from sspo_verl.tools.analyze import suggest
from sspo_verl.tools.analyze.command import command
from sspo_verl.tools.analyze.fields import Columns
from sspo_verl.tools.runs.recipe import algorithm_settings

PLAIN = {
    "clip_low": 0.7,
    "clip_high": 1.3,
    "clip_low_tight": 0.7,
    "alpha": 0.3,
    "entropy_low": 0.5,
    "entropy_high": 1.0,
    "entropy_clip": False,
}


def make(seed=0, rows=400, width=400, spread=0.2):
    """Independent log ratios, so that the spread of a segment's mean goes with one over the root of its length."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.zeros(rows, width, dtype=torch.int64)
    for row in ids:
        lengths = (2 ** (1 + 5.8 * torch.rand(width, generator=g))).long()
        row.copy_(torch.repeat_interleave(torch.arange(width), lengths)[:width])
    old = -1.5 - 3 * torch.rand(rows, width, generator=g)
    new = torch.minimum(old + spread * torch.randn(rows, width, generator=g), torch.tensor(-1e-4))
    return {
        "old_log_prob": old,
        "log_prob": new,
        "advantages": torch.randn(rows, 1, generator=g).expand(rows, width).contiguous(),
        "response_mask": torch.ones(rows, width, dtype=torch.int64),
        "segment_ids": ids,
        "entropy": 2 * torch.rand(rows, width, generator=g),
    }


def dumped(path, batch):
    """The batch in a rollout dump, as verl writes it with dump_segments."""
    rows = observe(**batch, **PLAIN, with_rows=True).fetch()[1]
    count = len(batch["log_prob"])
    found = records({"uid": [str(i) for i in range(count)], "session_id": [0] * count}, rows, limit=10**6)
    names = ("tokens", "entropy", "clip", "ratio", "advantage", "tv", "kl")
    with path.open("w") as file:
        for [record] in found.values():
            fields = {f"sspo_segment_{name}": getattr(record, name) for name in names}
            file.write(json.dumps({"output": "x", "score": 1.0, "sspo_segments": record.segments, **fields}) + "\n")
    return path


def clipped_share(batch, **settings):
    terms = sspo_token_terms(**batch, **(PLAIN | settings))
    return terms.clipped.double().mean().item(), terms


@pytest.fixture(scope="module")
def batch():
    return make()


@pytest.fixture(scope="module")
def seen(batch, tmp_path_factory):
    return suggest.read([dumped(tmp_path_factory.mktemp("dump") / "1.jsonl", batch)], Columns())


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_the_suggested_bands_and_gates_clip_the_share(batch, seen, share):
    doc = suggest.suggest(seen, share)
    assert doc["notes"] == []
    for band in doc["bands"]:
        settings = {name: band[name] for name in ("clip_low", "clip_high", "clip_length_exponent")}
        found, terms = clipped_share(batch, **settings, clip_length_reference=suggest.REFERENCE)
        assert found == pytest.approx(share, rel=0.15)
        assert band["clipped"] == pytest.approx(found, rel=0.05)
        length = terms.segments.length.gather(1, terms.segments.index_in_row)
        short = terms.clipped[length <= 8].double().mean().item()
        assert band["by_length"]["to_8"] == pytest.approx(short, rel=0.05)
    for gate in doc["gates"]:
        assert clipped_share(batch, **gate)[0] == pytest.approx(share, rel=0.15)


def test_minus_a_half_is_what_clips_all_lengths_equally(batch, seen):
    one_band, equal, fitted = suggest.suggest(seen, 0.1)["bands"]
    assert one_band["by_length"]["to_8"] > 5 * one_band["by_length"]["over_64"]
    shares = [equal["by_length"][name] for name in ("to_8", "to_16", "to_32", "to_64", "over_64")]
    assert max(shares) < 1.6 * min(shares)
    assert fitted["clip_length_exponent"] == pytest.approx(-0.5, abs=0.05)
    together = seen._replace(log_ratio=np.resize([0.1, -0.1], len(seen.tokens)))
    assert suggest.fitted_exponent(together) == 0.0


def test_what_the_dump_holds_is_what_the_loss_has(batch, seen):
    terms = clipped_share(batch)[1]
    exists = terms.segments.length > 0
    np.testing.assert_allclose(np.exp(seen.log_ratio), terms.ratio[exists], atol=1e-4)
    row, ids = batch["log_prob"][0], batch["segment_ids"][0]
    for name, divergence in (("tv", total_variation), ("kl", binary_kl)):
        of_tokens = divergence(batch["old_log_prob"][0], row)
        wanted = [of_tokens[ids == j].mean().item() for j in range(int(ids.max()) + 1)]
        np.testing.assert_allclose(getattr(seen, name)[: len(wanted)], wanted, rtol=1e-3)


def test_the_largest_that_is_kept_by_hand():
    values, tokens = np.array([0.3, 0.1, 0.2]), np.array([1.0, 6.0, 3.0])
    for share, kept in ((0.05, 0.3), (0.1, 0.2), (0.39, 0.2), (0.4, 0.1)):
        assert suggest.largest_kept(values, tokens, share) == kept


def test_a_share_that_no_band_clips_is_said(seen):
    doc = suggest.suggest(seen, 0.9)
    assert [band["clip_low"] for band in doc["bands"]] == [None] * 3
    assert sum("not possible" in line for line in suggest.lines(doc)) == 5


def test_the_command(batch, tmp_path):
    file = dumped(tmp_path / "1.jsonl", {name: values[:20] for name, values in batch.items()})
    told = CliRunner().invoke(command, [str(file), "--suggest", "0.05"])
    assert told.exit_code == 0, told.output
    assert "to clip 5.00% of the tokens:" in told.stdout
    assert "clip_length_exponent=-0.5 clip_low=" in told.stdout
    doc = json.loads(CliRunner().invoke(command, [str(file), "--suggest", "0.05", "--json"]).stdout)
    assert doc["share"] == 0.05
    assert doc["entropy"]["entropy_low"] < doc["entropy"]["entropy_high"]
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"output": "x"}) + "\n")
    told = CliRunner().invoke(command, [str(bare), "--suggest", "0.05"])
    assert told.exit_code == 2
    assert "no segment in these files has a ratio and an advantage" in " ".join(told.output.split())
    assert CliRunner().invoke(command, [str(file), "--suggest", "1.5"]).exit_code == 2


def test_the_reference_length_is_the_settings():
    asked = algorithm_settings("sspo")
    assert asked["actor_rollout_ref.actor.policy_loss.clip_length_reference"] == suggest.REFERENCE
    assert math.isclose(sum(suggest.SHARES), 1)
