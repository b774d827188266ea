"""What becomes of a scan of which one modality cannot be prepared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segpipe.errors import BadInput, Reason
from segpipe.prepare import atlas
from segpipe.prepare.checks import Check, check
from segpipe.prepare.raw import Raw
from segpipe.prepare.scan import _lost_host, _masked, _reference, _untrusted, _usable

SHAPE = (70, 90, 90)
AFFINE = np.array([[0, 0, -2.0, 90], [0, -2.0, 0, 90], [2.0, 0, 0, -70], [0, 0, 0, 1]])


def volume(role: str, slices: slice = slice(None), frames: int = 1, nothing: bool = False) -> Raw:
    """A ball as large as a brain, stripped, so that no network is needed."""
    places = np.indices(SHAPE, np.float32) - (np.array(SHAPE, np.float32)[:, None, None, None] - 1) / 2
    ball = np.square(places).sum(axis=0) < 33**2
    voxels = np.zeros(SHAPE, np.int16) if nothing else np.where(ball, 100, 0).astype(np.int16)
    return Raw(role, f"{role}.nii", voxels[slices], AFFINE, "SPL", frames=frames)


BAD = {
    "few slices": (volume("T1ce", slice(30, 38)), Reason.UNPREPARABLE),
    "a slab": (volume("T1ce", slice(4, 36)), Reason.BAD_PREPARATION),
    "4D": (volume("T1ce", frames=3), Reason.UNPREPARABLE),
    "no brain": (volume("T1ce", nothing=True), Reason.NO_BRAIN),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
@pytest.mark.process  # a slab is shown to the network
def test_a_modality_that_cannot_be_prepared_drops_out_alone(bad: Raw, reason: Reason) -> None:
    good = [volume("FLAIR"), volume("T1")]
    brains, lost = _usable([*good, bad])
    assert (set(brains), {role: error.reason for role, error in lost.items()}) == ({"FLAIR", "T1"}, {"T1ce": reason})
    assert "T1ce.nii (T1ce)" in str(lost["T1ce"])
    assert _reference([one for one in [*good, bad] if one.role in brains]).role == "T1"


def test_a_scan_that_keeps_none_of_the_four_modalities_is_refused() -> None:
    with pytest.raises(BadInput, match="3 frames") as caught:
        _usable([volume("FLAIR", frames=3), volume("adc")])
    assert caught.value.reason is Reason.UNPREPARABLE
    with pytest.raises(BadInput, match="8 slices"):
        _usable([BAD["few slices"][0]])
    assert set(_usable([volume("adc")])[0]) == {"adc"}


def pair(role: str, masks_agree: float = 0.97, mirrored: float = 0.8) -> list[Check]:
    return [check("masks_agree", masks_agree, role), check("metric", -0.5, role), check("mirrored", mirrored, role)]


def test_two_modalities_that_agree_outvote_a_third() -> None:
    reference, flair, t2 = volume("T1"), volume("FLAIR"), volume("T2")
    found = _untrusted([reference, flair, t2], reference, {"FLAIR": pair("FLAIR"), "T2": pair("T2", mirrored=1.2)})
    assert [(role, error.reason) for role, error in found.items()] == [("T2", Reason.BAD_PREPARATION)]
    assert "T2.nii (T2), laid onto T1, could not be prepared" in str(found["T2"])
    assert "mirrored of T2 is 1.2, bound 1.1" in str(found["T2"])


def test_where_two_disagree_nothing_tells_which_is_wrong() -> None:
    reference, flair, t2 = volume("T1"), volume("FLAIR"), volume("T2")
    assert _untrusted([reference, t2], reference, {"T2": pair("T2", 0.6)}) == {}
    pairs = {"FLAIR": pair("FLAIR", 0.7), "T2": pair("T2", 0.6)}
    assert _untrusted([reference, flair, t2], reference, pairs) == {}  # the reference may be what is wrong


def test_a_mask_goes_with_the_modality_that_it_was_drawn_on() -> None:
    flair, t2 = volume("FLAIR"), replace(volume("T2"), affine=AFFINE @ np.diag([1.0, 1.1, 1.1, 1.0]))
    mask = replace(t2, role="mask", name="mask.nii")
    assert _lost_host(mask, None, []) is None
    lost = _lost_host(mask, None, [t2])
    assert lost is not None
    assert str(lost).startswith("mask.nii was drawn on T2.nii (T2), which cannot be prepared")
    assert _lost_host(replace(mask, affine=AFFINE), flair, [t2]) is None
    assert _lost_host(replace(mask, affine=AFFINE, drawn_on="T2"), flair, [t2]) is not None


def test_nothing_but_the_brain_is_kept_so_that_no_face_is() -> None:
    head = np.random.default_rng(0).integers(1, 99, SHAPE).astype(np.int16)
    one = replace(volume("T1"), voxels=head, slope=2.0, inter=-5.0)
    brain = np.zeros(atlas.grid().shape, bool)
    brain[80:120, 110:150, 80:120] = True
    found = _masked(one, atlas.grid(), np.eye(4), brain) * one.slope + one.inter
    assert (found[~brain] == 0).all()
    assert (found[brain] > 0).mean() > 0.9
