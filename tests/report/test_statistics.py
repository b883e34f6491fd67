"""Intervals against numbers of a table of Student's t."""

import math

import pytest

from hfseq.report.statistics import Interval, interval, slope


def test_a_mean_and_its_interval():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.count == 3
    assert found.margin == pytest.approx(4.303 / math.sqrt(3))  # the standard deviation is 1
    assert interval([0.0, 1.0]).margin == pytest.approx(12.706 / 2)
    many = interval([0.0, 1.0] * 50)
    assert many.margin == pytest.approx(1.96 * 0.50252 / 10, rel=1e-3)


def test_one_value_has_no_interval_and_so_shows_no_difference():
    one = interval([5.0])
    assert one.margin is None and one.low == one.high == 5
    assert one.overlaps(interval([0.0, 0.1, 0.2]))
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_overlap():
    assert Interval(1, 0.5, 3).overlaps(Interval(2, 0.5, 3))
    assert not Interval(1, 0.4, 3).overlaps(Interval(2, 0.5, 3))
    assert not Interval(2, 0.5, 3).overlaps(Interval(1, 0.4, 3))


def test_slope_is_the_exponent():
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    with pytest.raises(ValueError, match="two points"):
        slope([1], [1])
