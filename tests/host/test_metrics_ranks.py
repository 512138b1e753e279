"""A step's metrics do not know over how many ranks, mini-batches and micro-batches it was spread.

From verl's worker to verl's trainer: real gloo ranks (`actor_rank`), then the driver's end on what they return.
"""

import itertools
import pickle
from types import SimpleNamespace

import pytest
import reference
import reference_metrics
import verl  # noqa: F401  loads the plugin
from actor_rank import MODES, SETTINGS, TEXTS, UPDATES, WORLDS, Queue, batch_of, rows_of, train
from omegaconf import OmegaConf
from verl.protocol import BatchData
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl_batch import TOKENIZER

from sspo_verl.metrics import dump, names, warnings
from sspo_verl.plugin import actor

# Integers over integers: the same to the last bit, whatever order they are added up in.
COUNTS = [
    *(f"sspo/token_clipfrac/{side}" for side in ("all", "low", "high")),
    *(f"sspo/segment_clipfrac/{side}" for side in ("all", "low", "high")),
    *(f"sspo/counterfactual/{algorithm}_clipfrac" for algorithm in ("grpo", "gspo", "gspo_wide")),
    *(f"sspo/clipfrac_by_length/{algorithm}/to_8" for algorithm in ("sspo", "grpo", "gspo", "gspo_wide")),
    *(f"sspo/clipfrac_by_update/{algorithm}/to_2" for algorithm in ("sspo", "grpo", "gspo", "gspo_wide")),
    "sspo/tokens_by_length/to_8",
    *(f"sspo/entropy_band/{band}" for band in ("low", "mid", "high")),
    *(f"sspo/segment_entropy/{of}" for of in ("min", "max", "p05", "p25", "p50", "p75", "p95")),
    "sspo/segments_per_response",
    "sspo/tokens_per_segment",
    "sspo/single_segment_frac",
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """{number of ranks: what each rank returned}."""
    return train(tmp_path_factory.mktemp("ranks"))


class Trainer(PPOTrainer):
    """verl's trainer in one step, with the actor's answers at hand."""

    def __init__(self, mode, answers, world=1):
        self.world = world
        self.config = OmegaConf.create(
            {
                "data": {"train_batch_size": 24},
                "actor_rollout_ref": {
                    "rollout": {"n": 2, "temperature": 1.0},
                    "actor": {
                        "policy_loss": {
                            "_target_": "sspo_verl.config.SSPOPolicyLossConfig",
                            **SETTINGS[mode],
                            "warn_single_segment": 0.2,
                        },
                        "ppo_mini_batch_size": 4,
                        "calculate_entropy": True,
                        "entropy_coeff": 0.0,
                        "ppo_epochs": 1,
                        "data_loader_seed": 1,
                        "shuffle": False,
                    },
                },
            }
        )
        self.distillation_config = None
        self.tokenizer = TOKENIZER
        self.sent = []
        self.global_steps = 1
        self.parameter_sync_step = len(answers)
        self.actor_rollout_wg = SimpleNamespace(update_actor=lambda batch: answers.pop(0))
        self.seen = 0

    def prepare_step(self):
        return {}

    def _step_once(self, metrics, timing_raw, sample_batch_size):
        batch = batch_of(self.seen, self.world)
        trainer_base.tq = Queue(self.seen)
        self.seen += 1
        self.sent.append(batch)
        return self._update_actor(batch, metrics=metrics)

    def on_step_end(self):
        raise NotImplementedError

    on_sample_end = on_step_end


def finished(ranks, world, mode):
    """The metrics of a step, as verl's trackers get them."""
    of_ranks = [rank[mode][0] for rank in ranks[world]]
    # Each answer as verl's driver collects it from its workers.
    answers = [BatchData(list(of_rank)).concat() for of_rank in zip(*of_ranks, strict=True)]
    found: dict = {}
    before = trainer_base.tq
    try:
        Trainer(mode, answers, world).step(found, {})
    finally:
        trainer_base.tq = before
    return found


def reference_rows():
    """[of each batch of the step: its rows for the reference, from their text on]."""
    found = []
    for update in range(len(UPDATES)):
        rows = []
        columns = rows_of(update)
        for i, tokens in enumerate(columns["responses"]):
            texts = [chr(token) if token < 256 else "" for token in tokens.tolist()]
            assert "".join(texts) == TEXTS[i % len(TEXTS)]
            mask = columns["response_mask"][i].tolist()
            ids = reference.segments_of_row(texts, [token == 256 for token in tokens.tolist()], mask)
            floats = (columns[name][i].tolist() for name in ("old_log_prob", "log_prob", "advantages"))
            rows.append(reference_metrics.Row(*floats, mask, ids, columns["entropy"][i].tolist()))
        found.append(rows)
    return found


def expected():
    batches, settings = reference_rows(), reference.Settings()
    # Two of each batch, and all of them in a row: verl computes old_log_prob of all with the policy before the first.
    of_updates = [part for rows, (_, cut) in zip(batches, UPDATES, strict=True) for part in (rows[:cut], rows[cut:])]
    together = reference_metrics.metrics([row for rows in batches for row in rows], settings)
    return together | reference_metrics.by_update(of_updates, settings)


def of_sspo(found):
    """Without what the driver adds: warnings, and the responses that are missing."""
    own = (f"{names.PREFIX}warning/", names.MISSING)
    return {name: value for name, value in found.items() if name.startswith(names.PREFIX) and not name.startswith(own)}


@pytest.mark.parametrize("mode", MODES)
def test_the_number_of_ranks_does_not_change_the_metrics(ranks, mode):
    cuts = {world: [rank[mode][1] for rank in ranks[world]] for world in WORLDS}
    found = {world: finished(ranks, world, mode) for world in WORLDS}
    one = found[1]
    assert all(len(set(of_rank)) > 1 for of_rank in itertools.chain(cuts[1], cuts[2])), "micro-batches of one size"
    assert {sum(map(sum, of_world)) for of_world in cuts.values()} == {sum(count for count, _ in UPDATES)}
    for world in WORLDS[1:]:
        assert of_sspo(found[world]) == pytest.approx(of_sspo(one), rel=1e-12, abs=0)
        for name in COUNTS:
            assert found[world][name] == one[name], (world, name)
    if mode == "quantile":
        return
    want = expected()
    assert of_sspo(one) == pytest.approx(want, rel=1e-6, abs=0)
    for name in COUNTS:
        if "entropy/" not in name:  # those are float32
            assert one[name] == want[name], name
    assert 0.05 < one["sspo/token_clipfrac/all"] < 0.95
    assert not {actor.COUNTS, actor.ROWS} & set(one), "what travelled is still there"


def test_shares_are_of_the_complete_batch(ranks):
    """entropy_thresholds=quantile: the same thresholds for any number of ranks and any cut, and those of the reference;
    what verl's workers trained with them is the same too."""
    settings = SETTINGS["quantile"]
    want = {"low": [], "high": []}
    for rows in reference_rows():
        segments = [segment for row in rows for segment in reference_metrics.segments_of(row, reference.Settings())]
        for side, of_batches in want.items():
            of_batches.append(reference_metrics.quantile([s.entropy for s in segments], settings[f"entropy_{side}"]))
    found = {world: finished(ranks, world, "quantile") for world in WORLDS}
    for side, of_batches in want.items():
        got = [found[world][f"sspo/entropy_threshold/{side}"] for world in WORLDS]
        assert got[0] == pytest.approx(sum(of_batches) / len(of_batches), rel=1e-6)
        assert len(set(got)) == 1
    assert found[1]["sspo/entropy_band/low"] == pytest.approx(0.3, abs=0.02)
    assert found[1]["sspo/entropy_band/high"] == pytest.approx(0.2, abs=0.02)
    for name in ("actor/pg_clipfrac", "actor/pg_loss"):
        assert [of_world[name] for of_world in found.values()] == pytest.approx(
            [found[1][name]] * len(WORLDS), rel=1e-6
        )
    assert found[1]["actor/pg_loss"] != pytest.approx(finished(ranks, 1, "sspo")["actor/pg_loss"], rel=1e-3)


def test_verls_own_names_are_the_same_too(ranks):
    found = [finished(ranks, world, "sspo") for world in WORLDS]
    for name in ("actor/pg_clipfrac", "actor/ppo_kl", "actor/pg_loss"):
        values = [of_world[name] for of_world in found]
        assert values[0] != 0
        assert values == pytest.approx([values[0]] * len(WORLDS), rel=1e-6), name


def test_the_algorithms_can_be_laid_side_by_side(ranks):
    """The same batch has the same metrics, whichever loss is trained; warnings are SSPO's own."""
    found = {mode: finished(ranks, 2, mode) for mode in MODES}
    del found["quantile"]  # bounds of its own
    for mode in found:
        assert of_sspo(found[mode]) == of_sspo(found["sspo"])
        signs = {name for name in found[mode] if name.startswith("sspo/warning/")}
        ours = mode in ("sspo", "dump")
        assert signs == ({f"sspo/warning/{name}" for name in warnings.SIGNS} if ours else set())
    assert found["sspo"]["sspo/warning/single_segment"] == 1.0
    assert found["sspo"]["sspo/warning/entropy"] == 0.0
    seldom = ("to_16", "to_32", "to_64", "over_64", "over_8", "entropy_threshold")  # not in so short a step
    assert set(found["sspo"]) >= {name for name in names.METRICS if not any(part in name for part in seldom)} - {
        f"sspo/clipfrac_by_update/{algorithm}/to_8" for algorithm in names.ALGORITHMS
    }


def test_a_warning_is_printed_on_the_driver(ranks, capsys):
    finished(ranks, 2, "sspo")
    printed = capsys.readouterr().out
    assert "WARNING at step 1. Few segments" in printed
    finished(ranks, 2, "vanilla")
    assert "WARNING" not in capsys.readouterr().out


def travelled(ranks, world, mode, names_of_metrics):
    """[[of each update: the metrics that the driver gets from this rank, of these names], of each rank]."""
    outputs = [rank[mode][0] for rank in ranks[world]]
    return [
        [{n: o["metrics"][n] for n in names_of_metrics if n in o["metrics"]} for o in of_rank] for of_rank in outputs
    ]


def test_the_driver_gets_the_counts_once(ranks):
    """verl hands what it gathered to every rank, and the driver takes the results of all: without more, with the square
    of their number. Here they come as one record per update, of one size, from the rank that the driver reads."""
    sizes = {}
    for world in WORLDS:
        first, *others = travelled(ranks, world, "sspo", (actor.COUNTS, *actor.SHARES))
        assert not any(itertools.chain(*others))
        for update, (count, _) in zip(first, UPDATES, strict=True):
            responses = update[actor.COUNTS].value.total.scalars["responses"]
            assert len(update[actor.COUNTS].value.clipped) == 2, "one for each mini-batch"
            assert responses == sum(any(mask.tolist()) for mask in rows_of(UPDATES.index((count, _)))["response_mask"])
        sizes[world] = len(pickle.dumps(first))
    print(f"\nbytes of our metrics that the driver gets in a step, by ranks: {sizes}")
    assert max(sizes.values()) < 1.02 * sizes[1], sizes
    wholes = {world: sum(len(pickle.dumps(rank["sspo"][0])) for rank in ranks[world]) for world in WORLDS}
    print(f"all bytes that the driver gets in a step, by ranks: {wholes}")
    rank = (wholes[8] - wholes[1]) / 7  # of verl's own metrics, from a rank more
    assert wholes == pytest.approx({world: wholes[1] + (world - 1) * rank for world in WORLDS}, rel=0.02)


def test_the_driver_gets_the_rows_of_each_rank_once(ranks):
    sizes = {}
    for world in WORLDS:
        first, *others = travelled(ranks, world, "dump", (actor.ROWS,))
        assert not any(itertools.chain(*others))
        sizes[world] = sum(len(pickle.dumps(update)) for update in first)
        for number, update in enumerate(first):
            parts = update[actor.ROWS].value
            assert sorted(itertools.chain(*parts)) == sorted(f"{number}-{i}_0" for i in range(UPDATES[number][0]))
            assert dump.merge(parts) == dump.merge(
                travelled(ranks, 1, "dump", (actor.ROWS,))[0][number][actor.ROWS].value
            )
    print(f"\nbytes of rows that the driver gets in a step, by ranks: {sizes}")
    assert sizes[8] < 1.5 * sizes[1], sizes
