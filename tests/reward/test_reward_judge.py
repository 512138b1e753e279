"""Judge: hanging and dying workers, bombs, threads, an event loop, forks; nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sspo_verl.reward import judge as judge_module
from sspo_verl.reward import process
from sspo_verl.reward.judge import Judge

ALGEBRA = (r"so \boxed{x+1}", "1+x")  # needs a worker, unlike plain numbers
SLOW = r"\prod_{k=1}^{100000}(x+k)"  # sympy multiplies it out
HANG = "import time; time.sleep(1000)"


def box(answer: str) -> str:
    return f"thus \\boxed{{{answer}}}."


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=2, seconds=2) as judge:
        yield judge


@pytest.fixture
def worker_that(monkeypatch):
    """A function: from now on, workers run this in place of every comparison."""

    def set_up(script: str) -> None:
        before = process._START.split("from sspo_verl")[0]
        patch = textwrap.dedent(f"""
            from sspo_verl.reward import compare, worker
            def same(answer, gold):
                {script}
                return True
            compare.same = same
            worker.main(int(sys.argv[1]))
        """)
        monkeypatch.setattr(process, "_START", before + "\n" + patch)

    return set_up


def test_right_wrong_and_no_answer(judge):
    assert judge.check(*ALGEBRA) == judge_module.Verdict(True, "x+1", "ok")
    assert judge.check(box("x+2"), "1+x") == judge_module.Verdict(False, "x+2", "ok")
    verdict = judge.check("the answer is 42", "42")
    assert (verdict.correct, verdict.answer, verdict.status) == (False, None, "no_answer")
    assert judge.check(None, "42").status == "no_answer"


@pytest.mark.parametrize("gold", ["", "  ", None, 4, {"target": "4"}, "90{square"])
def test_a_ground_truth_that_is_none_is_a_failure_not_a_wrong_answer(judge, gold):
    verdict = judge.check(box("x+1"), gold)
    assert verdict.status == "failed"
    assert "ground truth" in verdict.detail


@pytest.mark.parametrize(
    ("answer", "statuses"),
    [
        ("9^{9^{9^9}}", {"failed"}),  # refused before it is computed
        ("10^{10^{10}}", {"failed"}),
        ("x^{10^{10}}", {"failed"}),
        (SLOW, {"timeout"}),
        ("{" * 2000 + "}" * 2000, {"timeout", "ok"}),  # by the speed of the machine
        ("(" * 1000, {"timeout", "ok"}),
        ("{" * 500_000 + "}" * 500_000, {"failed"}),
        ("1\x00", {"ok"}),
        ("\ud800", {"ok"}),
        ("\\" * 50 + "x", {"ok"}),
        ("\\frac{1}{0}", {"ok"}),
    ],
)
def test_bombs_are_wrong_within_bounds_and_the_judge_goes_on(judge, answer, statuses):
    start = time.monotonic()
    verdict = judge.check(box(answer), "x+4")
    assert not verdict.correct
    assert verdict.status in statuses, verdict
    assert verdict.answer == answer
    assert time.monotonic() - start < 30
    assert judge.check(*ALGEBRA).correct


def test_what_signals_cannot_stop_is_killed_and_replaced(worker_that):
    worker_that("signal_mask = __import__('signal').pthread_sigmask(2, range(1, 30)); import time; time.sleep(1000)")
    with Judge(workers=1, seconds=0.3) as judge:
        start = time.monotonic()
        verdict = judge.check(*ALGEBRA)
        assert (verdict.correct, verdict.status) == (False, "timeout")
        assert "0.9 s" in verdict.detail
        assert time.monotonic() - start < 30
        assert not judge._all, "a worker that hangs must not be used again"
        assert judge.check(*ALGEBRA).status == "timeout"


def test_a_worker_ends_itself_when_its_starter_does_not(worker_that):
    worker_that(HANG)
    worker = process.Worker()
    with pytest.raises(process.WorkerLost, match=f"signal {int(signal.SIGALRM)}"):
        worker.ask("x", "y", cpu_seconds=0.1, wall_seconds=20)
    worker.end()


def test_processor_time_is_what_counts(worker_that, monkeypatch):
    worker_that("while True: pass")
    monkeypatch.setattr("sspo_verl.reward.judge.WALL_PER_CPU", 30)  # a busy machine is not to decide this test
    with Judge(workers=1, seconds=0.1) as judge:
        verdict = judge.check(*ALGEBRA)
        assert (verdict.correct, verdict.status) == (False, "timeout")
        assert "processor time" in verdict.detail
        assert len(judge._all) == 1, "a worker that could be interrupted is kept"


def test_memory_has_a_limit(worker_that):
    worker_that("bytes(3 * 1024**3)")
    with Judge(workers=1, seconds=5) as judge:
        verdict = judge.check(*ALGEBRA)
        assert (verdict.correct, verdict.status) == (False, "failed")
        assert "2 GiB" in verdict.detail
        assert not judge._all


def test_an_error_in_a_comparison_is_a_failure(worker_that):
    worker_that("raise TypeError('no such thing')")
    with Judge(workers=1) as judge:
        verdict = judge.check(*ALGEBRA)
        assert (verdict.correct, verdict.status) == (False, "failed")
        assert verdict.detail == "TypeError: no such thing"


def test_a_worker_killed_by_another_is_replaced_and_the_check_tried_again():
    with Judge(workers=1, seconds=2) as judge:
        assert judge.check(*ALGEBRA).correct
        (worker,) = judge._idle
        os.kill(worker.pid, signal.SIGKILL)
        assert judge.check(*ALGEBRA).correct
        (other,) = judge._idle
        assert other.pid != worker.pid

        slow = threading.Timer(1, os.kill, (other.pid, signal.SIGKILL))  # at work on it, for 2 s
        slow.start()
        verdict = judge.check(box(SLOW), "x+4")
        slow.join()
        assert verdict.status == "timeout", "the second worker's verdict"
        assert not other.is_alive()
        assert judge.check(*ALGEBRA).correct


def test_a_check_that_kills_its_workers_fails(worker_that):
    worker_that("import os; os._exit(7)")
    with Judge(workers=1) as judge:
        verdict = judge.check(*ALGEBRA)
        assert (verdict.correct, verdict.status) == (False, "failed")
        assert verdict.detail == "failed twice: the worker ended with exit code 7"


def test_workers_that_cannot_start_say_why(monkeypatch):
    hidden = "import sys; sys.modules['math_verify'] = None; "
    monkeypatch.setattr(process, "_START", hidden + process._START)
    with Judge(workers=1) as judge:
        verdict = judge.check(*ALGEBRA)
        assert verdict.status == "failed"
        assert "could not start: ModuleNotFoundError" in verdict.detail


def test_order_and_number_of_workers():
    pairs = [(box(f"x+{n}"), f"{n + n % 2}+x") for n in range(40)]
    with Judge(workers=2) as judge:
        verdicts = judge.check_all(pairs)
        assert [v.answer for v in verdicts] == [f"x+{n}" for n in range(40)]
        assert [v.correct for v in verdicts] == [n % 2 == 0 for n in range(40)]
        assert 1 <= len(judge._all) <= 2


def test_a_large_process_keeps_its_worker():
    """The starter's memory does not count as the worker's."""
    script = (
        "from sspo_verl.reward.judge import Judge\n"
        "ballast = bytearray(b'x') * 700_000_000\n"
        "with Judge(workers=1) as judge:\n"
        "    pids = set()\n"
        "    for n in range(3):\n"
        "        assert judge.check(f'\\\\boxed{{x+{n}}}', f'{n}+x').correct\n"
        "        pids |= {worker.pid for worker in judge._all}\n"
        "print(len(pids))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900)
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr


def test_plain_numbers_start_no_worker():
    with Judge() as judge:
        assert judge.check(box("0.5"), r"\frac{1}{2}").correct
        assert not judge.check(box("3"), "4").correct
        assert not judge._all


def test_from_threads_and_from_an_event_loop(judge):
    async def from_the_loop():
        here = judge.check(*ALGEBRA)  # blocks the loop; still right
        return [here, *await asyncio.gather(*(asyncio.to_thread(judge.check, *ALGEBRA) for _ in range(8)))]

    results = []
    thread = threading.Thread(target=lambda: results.extend(asyncio.run(from_the_loop())))
    thread.start()
    thread.join()
    assert [verdict.correct for verdict in results] == [True] * 9


def test_a_closed_judge_leaves_no_process_and_says_so():
    judge = Judge(workers=2)
    judge.check_all([ALGEBRA] * 4)
    pids = [worker.pid for worker in judge._all]
    assert pids
    judge.close()
    judge.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # not even a zombie
            os.kill(pid, 0)
    assert judge.check(*ALGEBRA).status == "failed"
    assert "closed" in judge.check(*ALGEBRA).detail


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"])
def test_workers_end_with_their_process(end):
    script = f"""
        import os, sys
        sys.path[:] = {sys.path!r}
        from sspo_verl.reward import math
        assert math.compute_score("d", "\\\\boxed{{x+1}}", "1+x")["score"] == 1
        (judge,) = math._judges._made.values()
        print(*(worker.pid for worker in judge._all), flush=True)
        {end}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, timeout=900, text=True, check=False
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives the process that started it"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")")[-1].split()[0] != "Z"  # its new parent may not collect it
    except OSError:
        return False


def test_a_fork_gets_workers_of_its_own(judge):
    assert judge.check(*ALGEBRA).correct
    before = set(judge._all)
    busy, done = threading.Event(), threading.Event()

    def hold() -> None:  # the lock, which in the child nobody will ever give back
        with judge._changed:
            busy.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    busy.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        right = judge.check(*ALGEBRA).correct and not before & judge._all
        judge.close()
        os._exit(0 if right else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert judge.check(*ALGEBRA).correct


@pytest.mark.parametrize(("settings", "name"), [({"workers": 0}, "workers=0"), ({"seconds": 0}, "seconds=0")])
def test_settings_that_cannot_work_are_refused(settings, name):
    with pytest.raises(ValueError, match=name):
        Judge(**settings)
