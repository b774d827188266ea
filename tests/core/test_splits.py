import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.core.splits import SPLITS, SplitRule, filled_rule
from segpipe.errors import UsageError

RULE = SplitRule("segpipe", 0.7, 0.15)
shares = st.floats(0, 1).flatmap(lambda train: st.tuples(st.just(train), st.floats(0, 1 - train)))


@pytest.mark.parametrize(
    ("subject", "place", "split"),
    [
        ("BraTS2021_00006", 0.6553727388564891, "train"),
        ("BraTS2021_01477", 0.7722159135421758, "validation"),
        ("BraTS2021_01481", 0.9262892304526864, "test"),
    ],
)
def test_the_hash_is_pinned(subject, place, split):
    """Tables in use were split by it: these numbers must never change."""
    assert RULE.place(subject) == place
    assert RULE.of(subject) == split


def test_the_hash_is_pinned_for_a_whole_cohort():
    text = "".join(RULE.of(f"sub-{number:03}")[1] for number in range(40))
    assert text == "rrrrrrraerrarrerrererrrrrrrreaaraarrrrrr"


def test_shares_are_met_within_three_deviations():
    subjects = [f"patient {number}" for number in range(10_000)]
    for salt in ("segpipe", "", "Ω"):
        sizes = SplitRule(salt, 0.7, 0.15).sizes(subjects)
        assert sum(sizes.values()) == 10_000
        assert abs(sizes["train"] - 7000) < 3 * 46
        assert abs(sizes["validation"] - 1500) < 3 * 36


@given(st.sets(st.text(max_size=12), max_size=30), st.sets(st.text(max_size=12), max_size=30), st.randoms())
def test_new_subjects_in_any_order_never_move_old_ones(old, new, order: random.Random):
    before = {subject: RULE.of(subject) for subject in sorted(old)}
    everyone = list(old | new)
    order.shuffle(everyone)
    after = {subject: RULE.of(subject) for subject in everyone}
    assert {subject: after[subject] for subject in old} == before


@given(st.text(max_size=12), st.floats(0, 0.4), st.floats(0, 0.3), st.floats(0, 0.3))
def test_a_larger_training_share_never_takes_a_subject_out_of_training(subject, train, more, validation):
    if SplitRule("s", train, validation).of(subject) == "train":
        assert SplitRule("s", train + more, validation).of(subject) == "train"


def test_another_salt_gives_another_split():
    subjects = [f"sub-{number}" for number in range(200)]
    other = SplitRule("other", 0.7, 0.15)
    moved = sum(RULE.of(subject) != other.of(subject) for subject in subjects)
    assert 60 < moved < 130


@given(st.text(), shares)
def test_a_rule_comes_back_from_its_text(salt, both):
    rule = SplitRule(salt, *both)
    assert SplitRule.parse(str(rule)) == rule


def test_the_text_of_a_rule_is_pinned():
    assert str(RULE) == "hmac-sha256 train=0.7 validation=0.15 salt=segpipe"


@pytest.mark.parametrize(
    "text", ["", "segpipe", "hmac-sha256 train=x validation=0.1 salt=", "md5 train=1 validation=0 salt="]
)
def test_a_text_that_is_no_rule_is_refused(text):
    with pytest.raises(ValueError, match=r"not a split rule|could not convert"):
        SplitRule.parse(text)


@pytest.mark.parametrize(("train", "validation"), [(1, 0), (0, 1), (0.9, 0.1), (0.7, 0.3), (0.6, 0.4), (0.8, 0.2)])
def test_shares_of_one_leave_nobody_to_test(train, validation):
    sizes = SplitRule("", train, validation).sizes(map(str, range(2000)))
    assert sizes["test"] == 0


def test_a_subject_on_the_border_of_two_splits_belongs_to_the_later_one():
    place = RULE.place("a")
    assert SplitRule("segpipe", place, 1 - place).of("a") == "validation"
    assert SplitRule("segpipe", math.nextafter(place, 1), 0).of("a") == "train"
    assert SplitRule("segpipe", 0, place).of("a") == "test"
    assert SplitRule("segpipe", 0, math.nextafter(place, 1)).of("a") == "validation"


def test_a_subject_whose_name_is_no_utf8_has_a_split():
    assert RULE.of(b"sub-\xff".decode(errors="surrogateescape")) in SPLITS


def test_no_shares_leave_everybody_to_test():
    assert SplitRule("", 0, 0).sizes(["a", "b", "b"]) == {"train": 0, "validation": 0, "test": 2}


@pytest.mark.parametrize(("train", "validation"), [(-0.1, 0.5), (0.9, 0.2), (float("nan"), 0), (0.5, float("inf"))])
def test_shares_of_no_whole_are_refused_with_a_remedy(train, validation):
    with pytest.raises(UsageError, match="whose sum is at most 1"):
        SplitRule("segpipe", train, validation)


def test_every_split_is_one_of_three():
    assert {RULE.of(str(number)) for number in range(100)} == set(SPLITS)


SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


@pytest.mark.parametrize("count", [6, 7, 12, 20, 24, 60])
def test_the_demo_s_splits_are_as_large_as_their_shares(count: int) -> None:
    subjects = {f"Synthetic_00_{number:03d}" for number in range(count)}
    rule = filled_rule(subjects, "segpipe", SHARES["train"], SHARES["validation"])
    sizes = rule.sizes(subjects)
    assert sum(sizes.values()) == count
    assert all(sizes[split] >= max(1, math.floor(share * count)) for split, share in SHARES.items())


def test_the_salt_that_was_asked_for_is_kept_where_it_fits_and_where_none_does() -> None:
    subjects = {f"s{number}" for number in range(200)}
    asked = filled_rule(subjects, "mine-3", 0.5, 0.2)
    again = filled_rule(subjects, asked.salt, 0.5, 0.2)
    assert again == asked
    assert filled_rule({"one", "two"}, "mine", 0.7, 0.15).salt == "mine"
