"""pass@k, maj@k and the intervals: golden values with their arithmetic, brute force, and coverage."""

import itertools
import random
from math import comb, sqrt
from statistics import fmean, pvariance

import pytest

from sspo_verl.tools.evaluate.estimators import group_key, majority, pass_at_k, pass_ks
from sspo_verl.tools.evaluate.intervals import average, over_problems, wilson


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 - 3 / 6),  # C(3,2) / C(4,2)
        (4, 2, 2, 1 - 1 / 6),
        (4, 3, 2, 1.0),  # two wrong ones cannot be drawn
        (10, 0, 10, 0.0),
        (10, 1, 10, 1.0),
        (1, 1, 1, 1.0),
    ],
)
def test_pass_at_k_golden(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_is_the_share_of_all_draws_with_a_correct_one():
    for n in range(1, 8):
        for c in range(n + 1):
            samples = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                draws = [any(draw) for draw in itertools.combinations(samples, k)]
                assert pass_at_k(n, c, k) == pytest.approx(fmean(draws), abs=1e-12)


def test_pass_at_k_is_unbiased():
    p, n, k = 0.3, 6, 3
    expected = sum(comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
    assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_what_has_no_meaning(n, c, k):
    with pytest.raises(ValueError, match="k must be in"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (10, [1, 2, 4, 8, 10])]
)
def test_pass_ks(n, expected):
    assert pass_ks(n) == expected


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["1", "1", "2"], [True, True, False], 1.0),
        (["1", "2", "2"], [True, False, False], 0.0),
        (["1", "2"], [True, False], 1 / 2),  # a tie: each as likely
        (["1", "2", "3", "3", "2"], [False, False, True, True, False], 1 / 2),
        (["0.5", "\\dfrac{1}{2}", "3", "3"], [True, True, False, False], 1 / 2),
        ([None, None, None, "7"], [False, False, False, True], 1.0),  # no answer is not a vote
        ([None, None], [False, False], 0.0),
        (["1"], [True], 1.0),
    ],
)
def test_majority_golden(answers, correct, expected):
    assert majority(answers, correct) == expected


def test_majority_does_not_depend_on_the_order():
    answers, correct = ["1", "2", "2", None, "1", "3"], [True, False, False, False, True, False]
    pairs = list(zip(answers, correct, strict=True))
    for shuffled in itertools.permutations(pairs):
        assert majority(*map(list, zip(*shuffled, strict=True))) == 1 / 2


@pytest.mark.parametrize(
    "alike",
    [
        ("1/2", "\\frac{1}{2}", "\\dfrac{1}{2}", "0.50", "$0.5$", " 1 / 2 ", ".5", "+0.5", "2/4", "0.5."),
        ("-1/2", "-\\frac{1}{2}", "\\frac{-1}{2}", "-0.5"),
        ("1,000", "1000", "1000.0", "1000."),
        ("\\left(1, 2\\right)", "(1,2)"),
        ("x + 1", "x+1"),
    ],
)
def test_one_answer_in_many_spellings_is_one_group(alike):
    assert len({group_key(answer) for answer in alike}) == 1


def test_different_answers_are_different_groups():
    answers = ["1", "2", "-1", "1/2", "0.3333", "1/3", "(1,2)", "1,2", "12", "1/0", "x", "x+1", "1,00", "10,0,0", ""]
    assert len({group_key(answer) for answer in answers}) == len(answers)


def test_long_digits_are_no_work():
    assert group_key("9" * 5000) == "9" * 5000


def test_wilson_golden():
    z = 1.959963984540054
    assert wilson(0.0, 50) == pytest.approx((0.0, z**2 / (50 + z**2)), abs=1e-12)
    assert wilson(1.0, 50) == pytest.approx((50 / (50 + z**2), 1.0), abs=1e-12)
    # 81 of 263, a textbook's case (Newcombe 1998, table I, method 3): 0.2553 to 0.3662
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_both_ends_of_wilson_solve_its_equation():
    """|p - x| = z sqrt(x(1-x)/n) at both ends x."""
    for p, n in ((0.1, 30), (0.5, 7), (0.97, 500)):
        for x in wilson(p, n):
            assert abs(p - x) == pytest.approx(1.959963984540054 * sqrt(x * (1 - x) / n), rel=1e-9)


def test_one_sample_per_problem_is_plain_wilson():
    values = [1.0] * 13 + [0.0] * 37
    found = over_problems(values)
    assert (found.low, found.high) == pytest.approx(wilson(0.26, 50), abs=1e-12)
    assert found.value == pytest.approx(0.26)


def test_effective_number_of_problems():
    values = [0.5, 0.25, 0.75, 0.5, 0.25, 0.75]  # p = 1/2, s^2 = 4 * 0.0625 / 5 = 0.05, n p q / s^2 = 30
    assert pvariance(values) == pytest.approx(0.25 / 6)
    found = over_problems(values, samples=8)
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 30), abs=1e-12)
    capped = over_problems(values, samples=4)
    assert (capped.low, capped.high) == pytest.approx(wilson(0.5, 24), abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_spread_at_the_edge_counts_problems_and_not_samples(value):
    found = over_problems([value] * 50, samples=16)
    assert (found.low, found.high) == pytest.approx(wilson(value, 50))


def test_one_problem_says_nothing_about_others():
    found = over_problems([0.5], samples=64)
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 1))


@pytest.mark.parametrize(("samples", "spread"), [(1, 0.4), (4, 0.4), (4, 0.15), (16, 0.3)])
def test_intervals_cover_the_truth_in_95_percent_of_cases(samples, spread):
    """Problems of different difficulty, uniform around 0.5; 60 of them, k samples each."""
    rng = random.Random(0)
    hits = 0
    for _ in range(1500):
        rates = [rng.uniform(0.5 - spread, 0.5 + spread) for _ in range(60)]
        found = over_problems([fmean(rng.random() < rate for _ in range(samples)) for rate in rates], samples)
        hits += found.low <= 0.5 <= found.high
    assert 0.93 < hits / 1500 < 0.975


def test_average_of_one_benchmark_is_that_benchmark():
    one = over_problems([1.0, 0.0, 0.0, 1.0, 0.0])
    mean = average([one])
    assert (mean.value, mean.low, mean.high) == pytest.approx((one.value, one.low, one.high))


def test_average_counts_benchmarks_alike_and_adds_squares():
    small, large = over_problems([1.0, 0.0]), over_problems([1.0] * 90 + [0.0] * 10)
    mean = average([small, large])
    assert mean.value == pytest.approx(0.7)  # (0.5 + 0.9) / 2
    assert mean.value - mean.low == pytest.approx(sqrt((0.5 - small.low) ** 2 + (0.9 - large.low) ** 2) / 2)
    assert mean.high - mean.value == pytest.approx(sqrt((small.high - 0.5) ** 2 + (large.high - 0.9) ** 2) / 2)


def test_interval_of_the_average_covers_too():
    rng = random.Random(1)
    truths, hits = (0.1, 0.5, 0.8), 0
    for _ in range(1500):
        sets = [
            over_problems([float(rng.random() < p) for _ in range(n)])
            for p, n in zip(truths, (30, 83, 200), strict=True)
        ]
        mean = average(sets)
        hits += mean.low <= fmean(truths) <= mean.high
    assert 0.93 < hits / 1500 < 0.97
