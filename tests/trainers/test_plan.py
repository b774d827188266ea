"""What a plan decides that the settings leave open."""

import pytest

from segpipe.trainers.plan import make_plan


@pytest.mark.parametrize(
    ("asked", "steps", "epochs"),
    [(None, 100, 30), (None, 50, 50), (None, 7, 358), (3, 7, 3)],
    ids=["a large cohort", "a small one", "a tiny one", "as asked"],
)
def test_a_small_cohort_is_passed_over_more_often(settings, asked: int | None, steps: int, epochs: int) -> None:
    plan = make_plan(settings(epochs=asked, steps_per_epoch=steps))
    assert (plan.epochs, plan.settings.epochs, plan.steps) == (epochs, epochs, steps)
