import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.core.regions import CONVENTIONS, LabelConvention, label_counts, to_labels, to_regions, unknown_labels

conventions = pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=list(CONVENTIONS))


@conventions
@pytest.mark.parametrize("dtype", ["u1", ">i2", "f4", "f8"])
@given(data=st.data())
def test_labels_to_regions_and_back_is_the_same(convention, dtype, data):
    elements = st.sampled_from([0, *convention.labels])
    labels = data.draw(hnp.arrays(dtype, (2, 3, 4), elements=elements))
    regions = to_regions(labels, convention)
    assert regions.shape == (2, 3, 4, len(convention.regions))
    assert regions.dtype == np.uint8
    assert to_labels(regions, convention).dtype == np.uint8
    np.testing.assert_array_equal(to_labels(regions, convention), labels)
    np.testing.assert_array_equal(to_labels(regions.astype(bool), convention), labels)


@pytest.mark.parametrize("name", [name for name in CONVENTIONS if CONVENTIONS[name].is_nested])
@given(data=st.data())
def test_any_region_map_becomes_a_label_map_whose_regions_are_nested(name, data):
    convention = CONVENTIONS[name]
    regions = data.draw(hnp.arrays(bool, (7, len(convention.regions))))
    again = to_regions(to_labels(regions, convention), convention)
    assert (np.diff(again.astype(int), axis=-1) <= 0).all()
    np.testing.assert_array_equal(again[:, -1], regions[:, -1])
    np.testing.assert_array_equal(again.any(axis=-1), regions.any(axis=-1))


@pytest.mark.parametrize(
    ("name", "labels", "rows"),
    [
        ("brats", [0, 1, 2, 4], [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]),
        ("brats2023", [0, 1, 2, 3], [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]),
        ("decathlon", [0, 1, 2, 3], [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]),
        ("binary", [0, 1], [[0], [1]]),
        ("brats2024", [0, 1, 2, 3, 4], [[0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]),
        ("brats-ped", [1, 2, 3, 4], [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]]),
    ],
)
def test_regions_of_each_archive(name, labels, rows):
    assert to_regions(np.array(labels, "u1"), CONVENTIONS[name]).tolist() == rows


def test_glioma_regions_have_the_same_names_and_order_in_every_archive():
    names = ("whole_tumour", "tumour_core", "enhancing_tumour")
    assert {CONVENTIONS[name].region_names for name in ("brats", "brats2023", "decathlon")} == {names}


def test_a_label_of_another_convention_is_named():
    with pytest.raises(ValueError, match=r"labels \[3\] are not in convention brats"):
        to_regions(np.array([0, 3, 4], "u1"), CONVENTIONS["brats"])


@pytest.mark.parametrize("labels", [np.array([-1, 0], "i2"), np.array([256, 300], "i4")], ids=str)
def test_labels_beyond_a_byte_do_not_wrap_round(labels):
    assert unknown_labels(labels, CONVENTIONS["brats"]) == [label for label in labels.tolist() if label]
    with pytest.raises(ValueError, match="are not in convention"):
        to_regions(labels, CONVENTIONS["brats"])


@pytest.mark.parametrize("labels", [[0.5], [np.nan], [np.inf]])
def test_labels_that_are_no_whole_numbers_are_refused(labels):
    with pytest.raises(ValueError, match="whole numbers"):
        label_counts(np.array(labels))


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_label_counts_leave_out_the_background(dtype):
    labels = np.array([[4, 0, 4], [1, 0, 0]], dtype)
    assert label_counts(labels) == {1: 1, 4: 2}
    assert label_counts(np.zeros((2, 2), dtype)) == {}


def test_another_number_of_regions_is_refused():
    with pytest.raises(ValueError, match="2 regions where convention brats has"):
        to_labels(np.zeros((4, 2), bool), CONVENTIONS["brats"])


@pytest.mark.parametrize(
    ("labels", "regions"),
    [
        ({1: "a", 2: "b", 3: "c"}, {"one": (1, 2), "two": (2, 3)}),
        ({1: "a", 2: "b", 3: "c"}, {"all": (1, 2, 3), "one": (1,)}),
        ({1: "a"}, {"one": (1, 5)}),
        ({300: "a"}, {"one": (300,)}),
    ],
    ids=["overlapping", "two labels for one region", "unnamed label", "beyond a byte"],
)
def test_a_convention_that_cannot_be_painted_back_is_refused(labels, regions):
    with pytest.raises(ValueError, match="convention odd"):
        LabelConvention("odd", labels, regions)


def test_regions_side_by_side_need_not_be_nested():
    convention = LabelConvention("two", {1: "a", 2: "b"}, {"one": (1,), "two": (2,)})
    assert not convention.is_nested
    assert to_labels(np.array([[1, 0], [0, 1], [1, 1], [0, 0]]), convention).tolist() == [1, 2, 2, 0]


@conventions
def test_a_line_that_describes_a_convention_is_its_name(convention):
    again = CONVENTIONS[convention.text]
    assert (again.labels, again.regions, again.name) == (convention.labels, convention.regions, convention.text)
    assert CONVENTIONS[again.name] is again
    assert convention.text in CONVENTIONS


@pytest.mark.parametrize("name", ["other", "", "a|b", "a|1=x|y=2", "a|x=1|y=1", None], ids=str)
def test_a_line_that_describes_none_is_no_name(name):
    assert name not in CONVENTIONS
    assert CONVENTIONS.get(name) is None


@conventions
def test_a_convention_travels_to_a_worker(convention):
    assert pickle.loads(pickle.dumps(convention)) == convention
