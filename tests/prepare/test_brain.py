"""The brain mask: its parts by hand, its networks on real heads."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from segpipe.prepare import brain, network, torchscript


def _archive(path, content: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
    return path


class _Evil:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(_Evil()), b"no pickle", pickle.dumps(io.BytesIO())],
    ids=["a command", "no pickle", "a foreign class"],
)
def test_an_archive_that_holds_anything_else_is_refused_and_not_run(tmp_path, content, monkeypatch):
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it was run"))
    with pytest.raises(ValueError, match="is not a TorchScript archive"):
        torchscript.weights(_archive(tmp_path / "net.pt", content))


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a TorchScript archive"):
        torchscript.weights(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["model", "bbox_model"])
def test_the_weights_of_both_networks_are_read(name):
    weights = torchscript.weights(network.weights_file(name))
    assert sum(array.size for array in weights.values()) == 2_126_258
    assert {array.dtype for array in weights.values()} == {np.dtype("<f4")}
    assert all(np.isfinite(array).all() and array.std() > 0 for array in weights.values())


@pytest.mark.process
def test_a_network_gives_probabilities_and_the_same_bits_twice():
    compiled = network.compiled("bbox_model", 32)
    image = np.random.default_rng(0).normal(0.449, 0.226, (1, 1, 32, 32, 32)).astype(np.float32)
    one, two = (compiled.create_infer_request().infer([image])[0].copy() for _ in range(2))
    assert one.shape == (1, 2, 32, 32, 32)
    np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-5)
    assert (one == two).all()


def test_only_the_largest_part_is_kept_and_its_holes_are_filled():
    mask = np.zeros((9, 9, 9), bool)
    mask[1:6, 1:6, 1:6] = True
    hollow = mask.copy()
    hollow[3, 3, 3] = False
    hollow[8, 8, 8] = True
    assert (brain.filled(brain.largest_component(hollow)) == mask).all()
    assert not brain.largest_component(np.zeros((2, 2, 2), bool)).any()


def test_the_box_has_a_margin_and_stays_inside():
    rough = np.zeros((10, 10, 10), bool)
    rough[2:8, 0:10, 4:6] = True
    assert brain.box_of(rough, (100, 50, 10)) == (slice(14, 86), slice(0, 50), slice(4, 6))
    assert brain.box_of(np.zeros((10, 10, 10), bool), (100, 50, 10)) is None


def test_a_constant_image_has_no_brain():
    assert not brain.find_brain(np.full((20, 20, 20), 7.0)).mask.any()


@pytest.mark.real
@pytest.mark.parametrize("patient", ["01", "04"])
def test_the_brain_of_a_real_head(real_data, patient):
    """Dice against a second, independent mask of the same head; measured 0.984 and 0.988."""
    import nibabel as nib

    folder = real_data / "open_ms"
    head = nib.as_closest_canonical(nib.load(folder / f"long_patient{patient}" / "study1_FLAIR.nii.gz"))
    second = folder / "raw_reference" / f"patient{patient}" / "study1_FLAIR_second_brainmask.nii.gz"
    truth = np.asarray(nib.as_closest_canonical(nib.load(second)).dataobj) > 0
    mask = brain.find_brain(np.asarray(head.dataobj)).mask
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) >= 0.97
