"""Cross-validation by patient: who is tested when, and what is told of them."""

from pathlib import Path

import pytest

from benchmarks.accuracy import FOLDS, fold_rule, judged, kept, train_options
from segpipe.errors import UsageError

SUBJECTS = [f"BraTS_{number:05d}" for number in range(9)]


def test_every_patient_is_tested_once_and_some_validate():
    tested = []
    for number in range(FOLDS):
        rule = fold_rule(SUBJECTS, number)
        splits = [rule.of(one) for one in SUBJECTS]
        tested += [one for one, split in zip(SUBJECTS, splits, strict=True) if split == "test"]
        assert 1 <= splits.count("validation") <= 2
        assert splits.count("train") >= 4
    assert sorted(tested) == SUBJECTS


def test_few_patients_to_learn_from_are_among_more_and_the_others_stay():
    subjects = [Path("archive") / name for name in SUBJECTS]
    rule = fold_rule(SUBJECTS, 0)
    learnt = [[path for path in kept(subjects, rule, count) if rule.of(path.name) == "train"] for count in (1, 3, 4)]
    assert [len(one) for one in learnt] == [1, 3, 4]
    assert set(learnt[0]) < set(learnt[1]) < set(learnt[2])
    for count in (1, 4):
        others = [path for path in kept(subjects, rule, count) if rule.of(path.name) != "train"]
        assert others == [path for path in subjects if rule.of(path.name) != "train"]
    assert kept(subjects, rule, None) == subjects
    with pytest.raises(UsageError, match="not 99: give a smaller PATIENTS"):
        kept(subjects, rule, 99)


@pytest.mark.parametrize("given", ["--filters 8 --seed 3", "--seed=3"])
def test_a_seed_among_the_options_is_refused_before_scans_are_read(given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTIONS", "--filters 8")
    assert train_options() == ["--filters", "8"]
    monkeypatch.setenv("OPTIONS", given)
    with pytest.raises(UsageError, match="give SEED=n"):
        train_options()


def test_errors_are_told_in_ml_and_false_lesions_count_as_nothing():
    row = {"subject": "a", "region": "whole_tumour", "voxels": 1000, "volume_ml": 2.0, "truth_voxels": 500}
    row |= {"truth_volume_ml": 1.0, "fp": 700, "fn": 200, "dice": 0.4, "hd95_mm": 3.0, "lesions": 3}
    row |= {"lesion_scores": [{"dice": 0.6}, {"dice": 0.0}], "false_lesions": [20]}
    told = judged(row)
    assert (told["false_ml"], told["missed_ml"]) == pytest.approx((1.4, 0.4))
    assert told["lesion_dice"] == pytest.approx(0.2)
    nothing = {**row, "voxels": 0, "truth_voxels": 0, "fp": 0, "fn": 0, "dice": None, "lesion_scores": []}
    empty = judged({**nothing, "false_lesions": []})
    assert (empty["dice"], empty["false_ml"], empty["lesion_dice"]) == (None, 0.0, None)
