"""Statistics by hand: tables of Student's t, t and bootstrap intervals, Holm's steps."""

import math

import pytest

from benchmarks.study.markdown import interval
from benchmarks.study.statistics import (
    bootstrap,
    holm,
    mean_interval,
    mean_interval_unpaired,
    paired_p,
    student_p,
    student_quantile,
)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [
        (1.0, 1, 0.5),  # arctan(1) = pi / 4
        (math.sqrt(2), 2, 1 - 1 / math.sqrt(2)),  # 1 - t / sqrt(2 + t^2)
        (12.7062, 1, 0.05),  # the usual table
        (4.3027, 2, 0.05),
        (2.7764, 4, 0.05),
        (2.2622, 9, 0.05),
        (3.2498, 9, 0.01),
        (2.0930, 19, 0.05),
        (0.0, 5, 1.0),
    ],
)
def test_student_p(t, freedom, p):
    assert student_p(t, freedom) == pytest.approx(p, abs=2e-5)
    assert student_p(-t, freedom) == student_p(t, freedom)


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (4, 2.7764), (9, 2.2622), (39, 2.0227)])
def test_student_quantile(freedom, t):
    assert student_quantile(freedom) == pytest.approx(t, abs=1e-4)


def test_mean_interval():
    # Mean 2, standard error sqrt(2.5) / sqrt(5) = sqrt(0.5), times 2.7764.
    found = mean_interval([0, 1, 2, 3, 4])
    assert found == pytest.approx((2, 2 - 2.7764 * math.sqrt(0.5), 2 + 2.7764 * math.sqrt(0.5), 5), abs=1e-4)
    assert mean_interval([0.5] * 5) == (0.5, 0.5, 0.5, 5)


def test_an_interval_excludes_0_where_the_test_is_significant():
    edge = 2.5706 * math.sqrt(0.8 / 6)  # of six values with deviations +-1 and 0, so a variance of 4 / 5
    for mean, significant in ((1.01 * edge, True), (0.99 * edge, False)):
        values = [mean + deviation for deviation in (-1, -1, 0, 0, 1, 1)]
        assert (paired_p(values) < 0.05) == significant
        assert (mean_interval(values).low > 0) == significant


def test_too_few_values_have_a_range_and_no_interval():
    found = mean_interval([0.1, 0.4, 0.1])
    assert found == pytest.approx((0.2, 0.1, 0.4, 3))
    assert interval(found) == "0.200 (0.100 to 0.400)"
    assert interval(mean_interval([0.5] * 5), signed=True) == "+0.500 [+0.500, +0.500]"


def test_unpaired():
    # Means 2 and 5, variances 2.5 and 2.5, of five each: standard error 1, and Welch's degrees of freedom are 8.
    found = mean_interval_unpaired([0, 1, 2, 3, 4], [3, 4, 5, 6, 7])
    assert found == pytest.approx((-3, -3 - 2.3060, -3 + 2.3060, 10), abs=1e-4)
    assert mean_interval_unpaired([1, 1], [1, 1]) == (0, 0, 0, 4)


def test_paired_p():
    # Mean 2, standard deviation sqrt(2.5), n = 5: t = 2 / (sqrt(2.5) / sqrt(5)) = 2 sqrt(2), of 4 degrees of freedom.
    assert paired_p([0, 1, 2, 3, 4]) == pytest.approx(student_p(2 * math.sqrt(2), 4))
    assert paired_p([0.0, 0.0, 0.0]) == 1  # exactly no difference
    assert paired_p([0.3]) == 1
    assert paired_p([0.5, 0.5]) == 0


def test_holm():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2 = 0.06, then 0.04 x 1 = 0.04, which must not be under the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_bootstrap():
    found = bootstrap([0.1, 0.3])
    # Of two values the resampled mean is 0.1, 0.2 or 0.3, with chances 1/4, 1/2, 1/4: both ends are in the interval.
    assert found == pytest.approx((0.2, 0.1, 0.3, 2))
    assert bootstrap([0.5] * 4) == pytest.approx((0.5, 0.5, 0.5, 4))


def test_bootstrap_interval_of_many_values_is_the_normal_one():
    values = [((7 * i) % 100) / 100 for i in range(100)]  # 0 to 0.99, each once
    half = 1.96 * math.sqrt(sum((v - 0.495) ** 2 for v in values) / 100) / 10
    found = bootstrap(values)
    assert found.mean == pytest.approx(0.495)
    assert found.low == pytest.approx(0.495 - half, abs=0.004)
    assert found.high == pytest.approx(0.495 + half, abs=0.004)
