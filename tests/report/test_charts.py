"""Charts put values where they belong."""

import math
import re

import pytest

from segpipe.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Series,
    line_chart,
    scatter_chart,
    spanning,
)


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'points="([^"]*)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]


def test_line_runs_from_corner_to_corner() -> None:
    svg = line_chart("t", [Series("s", [0, 10], [0, 1])], Axis("x", 0, 10), Axis("y", 0, 1))
    assert points(svg) == [[(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]]


def test_line_is_interrupted_where_a_value_is_missing() -> None:
    svg = line_chart("t", [Series("s", [0, 1, 2, 3, 4], [0, 1, math.nan, 1, 0])], Axis("x", 0, 4), Axis("y", 0, 1))
    assert [len(line) for line in points(svg)] == [2, 2]


def test_lone_point_is_seen() -> None:
    svg = line_chart("t", [Series("s", [1], [0.5])], spanning("x", [1], whole=True), Axis("y", 0, 1))
    assert "<circle" in svg


def test_marks_differ_in_shape_and_carry_escaped_notes() -> None:
    series = [Series("a", [1], [1], ["<b>"]), Series("b", [2], [2], ["n"], [True])]
    svg = scatter_chart("t", series, Axis("x", 0, 3), Axis("y", 0, 3))
    assert "<title>&lt;b&gt;</title><circle" in svg
    assert 'class="mark s1 hollow"' in svg
    assert "<title>n</title><rect" in svg


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", 1, 3, whole=True), [1, 2, 3]),
        (Axis("", 0, 157), [0, 50, 100, 150]),
        (Axis("", -3e-4, 3e-4), [-3e-4, -2e-4, -1e-4, 0, 1e-4, 2e-4, 3e-4]),
    ],
    ids=str,
)
def test_ticks_are_round_and_within(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks == pytest.approx(ticks)


@pytest.mark.parametrize("values", [[], [math.nan], [2.0], [0.0, 0.0]], ids=str)
def test_axis_of_few_values_is_not_empty(values: list[float]) -> None:
    axis = spanning("", values, zero=True)
    assert axis.low < axis.high
    assert axis.ticks
