"""Judge: decides whether a response's answer equals the ground truth, in worker processes with limits. Thread-safe."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from sspo_verl.reward import formats
from sspo_verl.reward.process import TookTooLong, Worker, WorkerLost
from sspo_verl.reward.settle import settle
from sspo_verl.reward.worker import WALL_PER_CPU

SECONDS = 5.0
# Longer answers are not compared as mathematics. The longest ground truth of the benchmarks has 210 characters. (The
# limit also keeps messages shorter than a pipe's buffer, so that sending to a hanging worker cannot block.)
LONGEST = 4000

Status = Literal["ok", "no_answer", "timeout", "failed"]


@dataclass(frozen=True)
class Verdict:
    """Result of a check. correct is True only if status is "ok".

    answer: the extracted answer, None if there is none. status: "no_answer" is the response's fault; "timeout" and
    "failed" are ours: it is unknown whether the answer was correct. detail: what went wrong. score: 0 to 1, from a
    comparison that gives partial credit; correct then means full credit.
    """

    correct: bool
    answer: str | None
    status: Status
    detail: str = ""
    score: float | None = None


class Judge:
    """Compares answers in up to `workers` processes, started when needed. Use it in a `with` statement, or close() it.

    workers: by default half of the processors that this process may use, at least 1 and at most 4.
    seconds: CPU time limit of one check; the wall-clock limit is three times that. Waiting for a free worker does not
    count.
    answer: where in a response its answer is, see `formats`.
    """

    COMPARISON = "sspo_verl.reward.compare"  # the workers' comparison module, see `worker`

    def __init__(self, workers: int | None = None, seconds: float = SECONDS, answer: str = "boxed"):
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise ValueError(
                f"workers={workers!r}: must be an integer of 1 or more, or null to choose by the number of CPUs"
            )
        if not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
            raise ValueError(f"seconds={seconds!r}: must be the limit of CPU seconds for one check, more than 0")
        self._format = formats.choose(answer)
        self.workers = workers or max(1, min(4, len(os.sched_getaffinity(0)) // 2))
        self.seconds = float(seconds)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._idle: list[Worker] = []
        self._busy = 0
        self._all: set[Worker] = set()
        self._closed = False

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, prediction: str | None, gold: str) -> Verdict:
        """Verdict on a complete response. Blocks for a bounded time; thread-safe; does not raise."""
        try:
            return self._check(self._format.read(prediction), gold)
        except TimeoutError as error:
            return Verdict(False, None, "timeout", f"looking for the answer: {error}")
        except Exception as error:
            return Verdict(False, None, "failed", f"{type(error).__name__}: {error}")

    def _check(self, answer: str | None, gold: str) -> Verdict:
        if not isinstance(gold, str) or not gold.strip():
            return Verdict(False, answer, "failed", f"the ground truth is {gold!r:.100}, not the text of an answer")
        if answer is None:
            return Verdict(False, None, "no_answer", f"nothing of the kind: {self._format.asked}")
        if len(answer) > LONGEST or len(gold) > LONGEST:
            if answer == gold.strip():
                return Verdict(True, answer, "ok")
            return Verdict(False, answer, "failed", f"longer than {LONGEST} characters: compared as text only")
        settled = settle(answer, gold)
        return self._ask(answer, gold) if settled is None else Verdict(settled, answer, "ok")

    def check_all(self, pairs: Iterable[tuple[str | None, str]]) -> list[Verdict]:
        """Verdicts on (prediction, gold) pairs, in order, using all workers."""
        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(lambda pair: self.check(*pair), pairs))

    def close(self) -> None:
        """End all workers, including busy ones."""
        if self._pid != os.getpid():  # in a fork: they belong to the parent
            return
        with self._changed:
            self._closed = True
            workers, self._all, self._idle = self._all, set(), []
            self._changed.notify_all()
        for worker in workers:
            worker.end()

    def _ask(self, answer: str, gold: str) -> Verdict:
        """Ask a worker. If it is lost, replace it and retry once: it may have been killed for an unrelated reason.

        If it hangs, replace it without a retry.
        """
        lost = ""
        for _ in range(2):
            worker = self._take()
            reply = None
            try:
                reply = worker.ask(answer, gold, self.seconds, self.seconds * WALL_PER_CPU)
                return Verdict(reply["correct"], answer, reply["status"], reply["detail"], reply["score"])
            except TookTooLong as error:
                return Verdict(False, answer, "timeout", str(error))
            except WorkerLost as error:
                lost = str(error)
            finally:
                self._give_back(worker, keep=reply is not None and not reply["leaving"])
        return Verdict(False, answer, "failed", f"failed twice: {lost}")

    def _take(self) -> Worker:
        if self._pid != os.getpid():  # in a fork: the parent's workers, threads and locks are not ours
            self._reset()
        with self._changed:
            while not self._closed and not self._idle and self._busy >= self.workers:
                self._changed.wait()
            if self._closed:
                raise RuntimeError("this Judge is closed")
            self._busy += 1
            worker = self._idle.pop() if self._idle else None
        try:
            if worker is not None and not worker.is_alive():  # killed while idle
                self._discard(worker)
                worker = None
            if worker is None:
                worker = Worker(self.COMPARISON)
                with self._changed:
                    self._all.add(worker)
        except BaseException:
            with self._changed:
                self._busy -= 1
                self._changed.notify()
            raise
        return worker

    def _give_back(self, worker: Worker, keep: bool) -> None:
        if not keep:
            self._discard(worker)
        with self._changed:
            self._busy -= 1
            if keep and not self._closed:
                self._idle.append(worker)
            self._changed.notify()

    def _discard(self, worker: Worker) -> None:
        with self._changed:
            self._all.discard(worker)
        worker.end()
