"""The last line of a benchmark can be read by a program, and more is always better."""

import re
from collections.abc import Callable

import pytest

from benchmarks import in_turn, report
from benchmarks.__main__ import main, names
from segpipe.errors import SegpipeError

LINE = re.compile(
    r"(?P<name>\S+): (?P<ratio>[\d.]+) of the reference \(ours (?P<ours>.+), reference (?P<reference>.+)\)"
)


@pytest.mark.parametrize(
    ("ours", "reference", "less_is_better", "ratio"),
    [(30.0, 20.0, False, 1.5), (10.0, 20.0, False, 0.5), (2.0, 3.0, True, 1.5), (4.0, 2.0, True, 0.5)],
    ids=["more images", "fewer images", "less time", "more time"],
)
def test_ratio_is_above_one_where_ours_is_better(
    ours: float, reference: float, less_is_better: bool, ratio: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("name", ours, reference, "u", less_is_better=less_is_better) == ratio
    match = LINE.fullmatch(capsys.readouterr().out.strip())
    assert match is not None
    assert float(match["ratio"]) == ratio
    assert (match["ours"], match["reference"]) == (f"{ours:g} u", f"{reference:g} u")


def test_sides_are_measured_in_turn_and_the_warm_up_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def side(name: str, figures: list[float]) -> Callable[[int], float]:
        return lambda number: (order.append(name), figures[number])[1]

    medians = in_turn(3, "scans/s", side("ours", [100, 4, 9, 5]), side("reference", [0.1, 2, 3, 2.5]))
    assert medians == (5, 2.5)
    assert order == ["ours", "reference"] * 4
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "warm-up: ours 100 scans/s, reference 0.1 scans/s"
    assert second == "round 1: ours 4 scans/s, reference 2 scans/s"


@pytest.mark.parametrize("figure", [0.0, -1.0, float("nan"), float("inf")], ids=str)
def test_figure_that_gives_no_ratio_is_refused(figure: float, capsys: pytest.CaptureFixture[str]) -> None:
    for ours, reference in ((figure, 1.0), (1.0, figure)):
        with pytest.raises(SegpipeError, match="name"):
            report("name", ours, reference, "u")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["a", "b"], ["../os"], ["__main__"]], ids=str)
def test_what_is_no_benchmark_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert names()
    assert [name for name in names() if name not in said] == []
