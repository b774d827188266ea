"""The model of scaling where its answer is known."""

import pytest

from benchmarks.scaling import line, speed_up


def test_an_endless_bandwidth_scales_with_the_workers() -> None:
    assert speed_up(16, step=0.5, gradient_bytes=1e6, bandwidth=1e18, latency=0) == pytest.approx(16)


def test_a_ring_that_takes_as_long_as_a_step_halves_the_speed() -> None:
    """Two workers pass on 2 x 1/2 of 10 MB at 10 MB/s: one second."""
    assert speed_up(2, step=1.0, gradient_bytes=10e6, bandwidth=10e6, latency=0) == pytest.approx(1.0)


def test_bandwidth_and_latency_are_read_off_a_line() -> None:
    bandwidth, latency = line([0, 1_000_000, 2_000_000], [0.01, 0.02, 0.03])
    assert bandwidth == pytest.approx(1e8)
    assert latency == pytest.approx(0.005)
