"""A model directory: written, read back, and refused when it is not what it says."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import ModelError
from segpipe.models.bundle import Bundle, load_keras, save_bundle
from segpipe.settings import NetworkSettings

SETTINGS = NetworkSettings(filters=4, depth=2)


def bundle_at(folder: Path) -> Bundle:
    return Bundle(
        url=str(folder),
        modalities=("flair", "t1ce"),
        orientation="SPL",
        crop=(16, 24),
        multiple=4,
        label_convention="brats",
        labels={"1": "necrotic core"},
        regions={"whole_tumour": (1, 2, 4)},
        network=asdict(SETTINGS),
        training={"epochs": 1},
        cohort="c",
        split_rule="rule",
        subjects={"train": 2, "validation": 1},
        metrics={"validation_dice": {"whole_tumour": 0.5}},
        weights_sha256="",
    )


@pytest.fixture
def network():
    from segpipe.models.unet import build_unet

    return build_unet(SETTINGS, channels=2, regions=1)


@pytest.fixture
def saved(tmp_path: Path, network) -> Bundle:
    return save_bundle(bundle_at(tmp_path / "model"), network, {"history.csv": b"epoch\n1\n"})


def test_comes_back_as_it_was_written(saved: Bundle):
    assert Bundle.load(saved.url).verify() == saved


def test_network_comes_back_with_the_same_answers(saved: Bundle, network):
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(load_keras(saved)(image), network(image))


def test_model_id_is_of_what_it_computes_not_of_where_or_when(saved: Bundle, tmp_path: Path, network):
    again = save_bundle(replace(bundle_at(tmp_path / "other"), cohort="d"), network)
    assert again.model_id == saved.model_id
    network.layers[1].set_weights([weights + 1 for weights in network.layers[1].get_weights()])
    assert save_bundle(bundle_at(tmp_path / "third"), network).model_id != saved.model_id


def test_a_changed_file_is_found(saved: Bundle):
    path = Path(saved.url) / "model.keras"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"model\.keras has sha256"):
        saved.verify()
    with pytest.raises(ModelError, match="not the file that was saved"):
        load_keras(saved)


def test_a_missing_file_is_found(saved: Bundle):
    (Path(saved.url) / "history.csv").unlink()
    with pytest.raises(ModelError, match=r"history\.csv is missing"):
        saved.verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": ["t1ce", "flair"]}, "says that it is"),
        ({"format": 99}, "not of bundle format"),
        ({"strange": 1}, "fields strange"),
    ],
)
def test_a_changed_index_is_found(saved: Bundle, change: dict[str, object], message: str):
    path = Path(saved.url) / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        Bundle.load(saved.url)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_folder_that_is_no_model(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(ModelError):
        Bundle.load(str(tmp_path))


def test_files_can_be_added(saved: Bundle):
    (Path(saved.url) / "openvino").mkdir()
    (Path(saved.url) / "openvino" / "model.xml").write_text("<net/>")
    added = saved.with_files("openvino/model.xml")
    assert set(added.files) == {"model.keras", "history.csv", "openvino/model.xml"}
    assert Bundle.load(saved.url).verify() == added
    assert added.model_id == saved.model_id
