"""What a plan decides that the settings leave open."""

import shutil
from pathlib import Path

import pytest

from segpipe.trainers.contract import TrainPlan
from segpipe.trainers.plan import make_plan
from tests.trainers.conftest import merge


@pytest.mark.parametrize(
    ("asked", "steps", "epochs"),
    [(None, 100, 20), (None, 25, 28), (None, 9, 78), (3, 7, 3)],
    ids=["a large cohort", "a small one", "a tiny one", "as asked"],
)
def test_a_small_cohort_is_passed_over_more_often(settings, asked: int | None, steps: int, epochs: int) -> None:
    plan = make_plan(settings(epochs=asked, steps_per_epoch=steps))
    assert (plan.epochs, plan.settings.epochs, plan.steps) == (epochs, epochs, steps)


@pytest.mark.parametrize(
    ("share", "epochs", "coarse"), [(0.0, 10, 0), (0.75, 10, 8), (0.99, 10, 9), (0.8, 1, 0)], ids=str
)
def test_the_last_epoch_is_never_coarse(settings, share: float, epochs: int, coarse: int) -> None:
    assert make_plan(settings(coarse_share=share, epochs=epochs)).coarse_epochs == coarse


@pytest.mark.parametrize(("dimensions", "asked", "batch"), [(2, None, 16), (3, None, 2), (2, 4, 4), (3, 4, 4)])
def test_a_batch_of_patches_is_smaller_than_one_of_slices(
    settings, dimensions: int, asked: int | None, batch: int
) -> None:
    plan = make_plan(settings(dimensions=dimensions, batch_size=asked, patch_size=8 if dimensions == 3 else None))
    assert (plan.batch_size, plan.settings.batch_size) == (batch, batch)


def test_compact_changes_no_slice_of_a_step(settings, tables: str, tmp_path: Path) -> None:
    """Slices are told by scan and place: the parts that hold them are others."""

    def told(plan: TrainPlan) -> list[tuple[str, int, int, bool]]:
        scans = [plan.scans[place] for place in plan.slices.scan]
        groups = [scan.groups.index(group) for scan, group in zip(scans, plan.slices.group, strict=True)]
        ids = [scan.scan_id for scan in scans]
        return list(zip(ids, groups, plan.slices.row, plan.slices.foreground, strict=True))

    before = make_plan(settings())
    merge(shutil.copytree(tables, tmp_path / "merged").as_posix())
    after = make_plan(settings(warehouse=str(tmp_path / "merged")))
    assert {path for path, _ in before.groups} != {path for path, _ in after.groups}
    assert told(after) == told(before)
    assert (after.slices.group == before.slices.group).all()  # the order of a step is drawn from these numbers
