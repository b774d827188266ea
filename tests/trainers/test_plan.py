"""What a plan decides that the settings leave open."""

import pytest

from segpipe.trainers.plan import make_plan


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
    plan = make_plan(settings(dimensions=dimensions, batch_size=asked, patch_size=8))
    assert (plan.batch_size, plan.settings.batch_size) == (batch, batch)
