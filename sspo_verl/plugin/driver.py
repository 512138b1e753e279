"""SSPO on verl's driver: the advantage, the metrics of a step, its warnings, and the dumps."""

from __future__ import annotations

import contextvars
import functools
import itertools
import weakref
from typing import TYPE_CHECKING

import torch

from sspo_verl.log import say, say_once
from sspo_verl.metrics.guard import report_failure
from sspo_verl.metrics.names import PREFIX
from sspo_verl.names import NAME
from sspo_verl.plugin import thresholds
from sspo_verl.plugin.actor import COUNTS, ROWS, padded
from sspo_verl.plugin.require import require
from sspo_verl.plugin.responses import missing
from sspo_verl.plugin.segmenter import segmenter_on

if TYPE_CHECKING:
    from sspo_verl.metrics.updates import Updates


def advantage_estimator(token_level_rewards, response_mask, index, config=None, **_unused):
    """verl's advantage estimator `sspo`: `advantage.group_advantage` of the summed rewards, on every valid token.

    token_level_rewards, response_mask: [batch, length]. index: the prompt's uid, one per row; equal ones make a
    group. config: algorithm.*, of which norm_adv_by_std_in_grpo is used. verl passes what other estimators need too.
    Returns advantages and returns, the same [batch, length], 0 where masked.
    """
    import numpy as np

    from sspo_verl.advantage import group_advantage

    normalize_by_std = True if config is None else config["norm_adv_by_std_in_grpo"]
    say_once(f"advantage estimator sspo (arXiv 2511.04256), norm_adv_by_std_in_grpo={normalize_by_std}")
    _, group_ids = np.unique(np.asarray(index).astype(str), return_inverse=True)
    advantage = group_advantage(
        rewards=token_level_rewards.sum(dim=-1),
        group_ids=torch.as_tensor(group_ids, device=token_level_rewards.device),
        normalize_by_std=normalize_by_std,
    )
    advantages = torch.where(response_mask != 0, advantage[:, None], 0.0)
    return advantages, advantages


_by_session: contextvars.ContextVar[bool] = contextvars.ContextVar("by_session", default=False)


def wrap_sessions(utils) -> None:
    """verl.trainer.ppo.v1.utils: a session that is recorded as several trajectories is one member of its group. verl
    scores its last trajectory and hands the advantage to the others, but for its own grpo alone: `sspo` goes the
    same way, and is put in grpo's place where the advantage is computed."""
    of_sessions = require(
        utils, "compute_advantage_for_multi_trajectories", ("data", "batch_keys", "adv_estimator", "config")
    )
    of_rows = require(utils, "compute_advantage", ("data", "adv_estimator", "config"))

    @functools.wraps(of_sessions)
    def compute_advantage_for_multi_trajectories(data, batch_keys, adv_estimator, **settings):
        if adv_estimator != NAME:
            return of_sessions(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **settings)
        token = _by_session.set(True)
        try:
            return of_sessions(
                data, batch_keys=batch_keys, adv_estimator=utils.core_algos.AdvantageEstimator.GRPO, **settings
            )
        finally:
            _by_session.reset(token)

    @functools.wraps(of_rows)
    def compute_advantage(data, adv_estimator, **settings):
        return of_rows(data, adv_estimator=NAME if _by_session.get() else adv_estimator, **settings)

    utils.compute_advantage_for_multi_trajectories = compute_advantage_for_multi_trajectories
    utils.compute_advantage = compute_advantage


FAILED = f"{PREFIX}diagnostics_failed"
_report: contextvars.ContextVar[Report | None] = contextvars.ContextVar("report", default=None)


def wrap_reduce_metrics(module) -> None:
    """verl.utils.metric: counts are not numbers that verl could average. They go to the trainer's report of its step; a
    trainer that has none (not of the V1 family) gets the metrics of what it reduces."""
    reduce_metrics = require(module, "reduce_metrics", ("metrics",))

    @functools.wraps(reduce_metrics)
    def reduce_metrics_but_counts(metrics):
        counts, rows = metrics.pop(COUNTS, None), metrics.pop(ROWS, None)
        reduced, report = reduce_metrics(metrics), _report.get()
        if counts is None:
            return reduced
        if report is not None:
            report.take(_updates(counts.value), [] if rows is None else rows.value)
        else:
            report = Report(None, None, updates=0)
            report.take(_updates(counts.value), [])
            reduced.update(report.finish(0))
        return reduced

    module.reduce_metrics = reduce_metrics_but_counts


def _updates(value) -> Updates:
    """Where no ranks were gathered, which update a count is of is not known."""
    from sspo_verl.metrics.updates import Updates

    return value if isinstance(value, Updates) else Updates(value)


def wrap_trainer(trainer_base) -> None:
    """verl.trainer.ppo.v1.trainer_base: a step's counts become metrics, and its segments fields of the dumps; an update
    gets the entropy thresholds of its batch, where they are shares."""
    trainer = trainer_base.PPOTrainer
    step = require(trainer, "step", ("metrics", "timing_raw"))
    init_tokenizer = require(trainer, "_init_tokenizer", ())
    update_actor = require(trainer, "_update_actor", ("batch", "metrics"))
    dump = require(trainer, "_dump_generations", ("inputs", "outputs", "reward_extra_infos_dict", "dump_path"))
    reports: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # by trainer

    def report_of(trainer) -> Report:
        if trainer not in reports:
            from sspo_verl.config import settings_of
            from sspo_verl.plugin.run_settings import Run

            settings = settings_of(trainer.config.actor_rollout_ref.actor.policy_loss)
            run = None if settings is None else Run(trainer.config, settings)
            updates = 0 if run is None else run.updates
            wanted = run.responses if run is not None and run.settings.diagnostics else None
            reports[trainer] = Report(settings, trainer.tokenizer, updates, wanted)
        return reports[trainer]

    @functools.wraps(init_tokenizer)
    def init_tokenizer_with_check(self):
        init_tokenizer(self)
        report_of(self).check_tokenizer()

    @functools.wraps(step)
    def step_with_report(self, metrics, timing_raw):
        report = report_of(self)
        report.begin()
        token = _report.set(report)
        try:
            batch = step(self, metrics, timing_raw)
        finally:
            _report.reset(token)
        metrics.update(report.finish(self.global_steps, batch))
        return batch

    @functools.wraps(update_actor)
    def update_actor_with_thresholds(self, batch, metrics):
        report_of(self).add_thresholds(trainer_base.tq, batch)
        return update_actor(self, batch, metrics)

    @functools.wraps(dump)
    def dump_with_segments(self, inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path):
        extra = reward_extra_infos_dict | report_of(self).dump_fields(reward_extra_infos_dict, outputs)
        return dump(self, inputs, outputs, gts, scores, extra, dump_path)

    trainer.step = step_with_report
    trainer._update_actor = update_actor_with_thresholds
    trainer._init_tokenizer = init_tokenizer_with_check
    trainer._dump_generations = dump_with_segments


class Report:
    """Report of a trainer's steps: metrics, warnings in the log, fields of the dumps. What fails in it is said,
    counted and left out."""

    def __init__(self, settings, tokenizer, updates: int, responses: int | None = None):
        self.settings = settings
        self.tokenizer = tokenizer
        self.updates = updates  # of the actor in a step
        self.responses = responses  # that a step should have; None where nobody knows
        self.failed = 0  # since the last step's metrics
        self.begin()

    def check_tokenizer(self) -> None:
        """Raise ValueError, with the way out, if responses are to be cut and the segmenter cannot do it."""
        settings = self.settings
        if settings is not None and (settings.loss_mode == NAME or settings.diagnostics):
            self._segmenter()

    def _segmenter(self):
        return segmenter_on(torch.device("cpu"), self.tokenizer, self.settings.segments())

    def begin(self) -> None:
        """A step begins: what the last one brought is not kept."""
        self.updates_of: list[Updates] = []  # of each batch of the step
        self.rows: list = []
        self.thresholds: list[dict[str, float]] = []  # of each update, where they are shares

    def add_thresholds(self, tq, batch) -> None:
        """Put the entropy thresholds of a batch where each of its micro-batches finds them. A run that trains another
        loss does without, where that fails."""
        if not thresholds.wanted(self.settings):
            return

        def find() -> dict[str, float]:
            return self._thresholds(tq, batch)

        trains = self.settings.loss_mode == NAME
        found = find() if trains else self._attempt("the entropy thresholds of a batch", find, {})
        if found:
            self.thresholds.append(found)
            batch.extra_info.update({key: found[name] for name, key in thresholds.IN_BATCH.items()})

    def _thresholds(self, tq, batch) -> dict[str, float]:
        """{entropy_low, entropy_high: in nats}, of verl's KVBatchMeta. tq: the trainer's TransferQueue client."""
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        fields = ["responses", "response_mask", "entropy"]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        responses, mask, entropy = (padded(data[name]) for name in fields)
        ids = segmenter_on(responses.device, self.tokenizer, self.settings.segments())(responses, mask, entropy)
        shares = {name: getattr(self.settings, name) for name in thresholds.IN_BATCH}
        found = thresholds.quantiles(entropy, mask, ids, list(shares.values()))
        return dict(zip(shares, found, strict=True))

    def take(self, updates: Updates, rows: list) -> None:
        """Add what the actors counted in the updates on one batch."""
        self.updates_of.append(updates)
        self.rows += rows

    def finish(self, step: int, batch=None) -> dict[str, float]:
        """The step's metrics; prints its warnings. batch: verl's, with the keys and tags of its rows."""
        row = self._attempt("the step's metrics sspo/*", self._metrics, {})
        row |= self._attempt("counting responses", lambda: missing(batch, self.responses), {})
        if self.settings is not None and self.settings.loss_mode == NAME and row:
            row |= self._attempt("looking for warnings", lambda: self._warn(step, row), {})
        if row or self.failed:
            row[FAILED] = row.get(FAILED, 0.0) + self.failed
        self.failed = 0
        return row

    def _attempt(self, what: str, function, otherwise):
        try:
            return function()
        except Exception as error:
            report_failure(what, error)
            self.failed += 1
            return otherwise

    def _metrics(self) -> dict[str, float]:
        if not self.updates_of:
            return {}
        from sspo_verl.metrics.finalize import metrics

        totals, clipped = zip(*self.updates_of, strict=True)
        # Where a step has several batches (separate_async), old_log_prob of all is by the policy before the first.
        in_a_row = list(itertools.chain.from_iterable(clipped))
        return metrics(totals, [in_a_row], self.thresholds)

    def _warn(self, step: int, row: dict[str, float]) -> dict[str, float]:
        for line in self.warner.due(step, row):
            say(f"WARNING at step {step}. {line}")
        return {f"{PREFIX}warning/{name}": float(seen) for name, seen in self.warner.look(row).items()}

    @functools.cached_property
    def warner(self):
        from sspo_verl.metrics.warnings import Warner, signs_of

        signs = signs_of(self.settings)
        names = [sign.threshold for sign in signs.values() if sign.threshold]
        thresholds = {name: getattr(self.settings, name) for name in names}
        if self.updates == 1:
            thresholds["warn_ratio"] = 0.0  # then all ratios are 1, as the driver said before the first rollout
        return Warner(self.settings.warn_every_steps, thresholds, signs)

    def dump_fields(self, known: dict[str, list], outputs: list[str]) -> dict[str, list]:
        """The extra fields of a dump, where they are asked for. known: verl's, with the rows' keys as `uid`."""
        if self.settings is None or not self.settings.dump_segments:
            return {}
        return self._attempt("adding segments to a dump", lambda: self._dump_fields(known["uid"], outputs), {})

    def _dump_fields(self, keys: list[str], outputs: list[str]) -> dict[str, list]:
        from sspo_verl.metrics import dump
        from sspo_verl.segmenters import factory_of

        known, limit = dump.merge(self.rows), self.settings.dump_segments
        cut = None if factory_of(self.settings.segmenter).needs_entropy else self._segmenter()
        return dump.fields(keys, outputs, known, self.tokenizer, cut, limit)
