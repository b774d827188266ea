"""A model directory: written, read back, and refused when it is not what it says."""

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import ModelError
from segpipe.models.bundle import FORMAT, Bundle, load_keras, save_bundle
from segpipe.models.weights import packed
from segpipe.settings import NetworkSettings

SETTINGS = NetworkSettings(filters=4, depth=2, mirror=False)


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
    path = Path(saved.url) / "weights.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"weights\.npz has sha256"):
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", 5),
        ("crop", ["64"]),
        ("multiple", 0),
        ("threshold", float("nan")),
        ("labels", {"one": "core"}),
        ("regions", []),
        ("regions", {"whole_tumour": 5}),
        ("network", {"dimensions": "3"}),
        ("network", {"dimensions": 2, "neighbours": "2"}),
        ("network", {"dimensions": 2, "neighbours": -1}),
        ("network", {"dimensions": 2, "neighbours": 10**9}),
        ("network", {"dimensions": 2, "neighbours": [2]}),
        ("thresholds", {"whole_tumour": "high"}),
        ("files", {"../../../dev/zero": "0"}),
        ("files", {"/dev/zero": "0"}),
        ("adopted", None),
        ("space", 1),
    ],
)
def test_a_field_without_its_form_is_named(tmp_path: Path, field: str, value: object):
    content = {"format": FORMAT, **asdict(bundle_at(tmp_path)), field: value}
    (tmp_path / "bundle.json").write_text(json.dumps({name: one for name, one in content.items() if name != "url"}))
    with pytest.raises(ModelError, match=rf"has a malformed {field} in its bundle\.json: copy it again"):
        Bundle.load(str(tmp_path))


@pytest.mark.parametrize("name", ["bundle.json", "weights.npz"])
def test_what_would_be_read_for_ever_is_not_read(saved: Bundle, name: str):
    path = Path(saved.url) / name
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=f"{name} is no file"):
        Bundle.load(saved.url).verify()
    with pytest.raises(ModelError, match=f"{name} is no file"):
        load_keras(Bundle.load(saved.url))


@pytest.mark.parametrize("content", [None, "", "{", "[]", "[" * 100_000])
def test_a_folder_that_is_no_model(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(ModelError):
        Bundle.load(str(tmp_path))


def test_files_can_be_added(saved: Bundle):
    (Path(saved.url) / "openvino").mkdir()
    (Path(saved.url) / "openvino" / "model.xml").write_text("<net/>")
    added = saved.with_files("openvino/model.xml")
    assert set(added.files) == {"weights.npz", "history.csv", "openvino/model.xml"}
    assert Bundle.load(saved.url).verify() == added
    assert added.model_id == saved.model_id


def earlier(saved: Bundle, data: bytes) -> Bundle:
    """The directory as earlier versions wrote it, with `data` as its model.keras and the hashes that go with it."""
    folder = Path(saved.url)
    (folder / "weights.npz").unlink()
    (folder / "model.keras").write_bytes(data)
    index = json.loads((folder / "bundle.json").read_text())
    del index["files"]["weights.npz"]
    index["files"]["model.keras"] = hashlib.sha256(data).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(index))
    return Bundle.load(saved.url).verify()


def saved_by_keras(model, name: str, folder: Path) -> bytes:
    path = folder / name
    model.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("mirror", [False, True])
def test_a_model_of_an_earlier_version_gives_the_same_answers(tmp_path: Path, mirror: bool):
    from segpipe.models.unet import build_unet, to_segment

    settings = replace(SETTINGS, mirror=mirror)
    network = to_segment(build_unet(settings, channels=2, regions=1, seed=5), settings)
    saved = save_bundle(replace(bundle_at(tmp_path / "model"), network=asdict(settings)), network)
    old = earlier(saved, saved_by_keras(network, "old.keras", tmp_path))
    assert old.model_id == saved.model_id
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(load_keras(old)(image), network(image))


def test_code_in_an_hdf5_file_named_like_a_model_is_not_run(saved: Bundle, tmp_path: Path):
    import tensorflow as tf

    ran = tmp_path / "ran"

    def spring(image, where=str(ran)):
        open(where, "a").close()
        return image

    image = tf.keras.Input((None, None, 2))
    data = saved_by_keras(tf.keras.Model(image, tf.keras.layers.Lambda(spring)(image)), "trap.h5", tmp_path)
    ran.unlink()
    with pytest.raises(ModelError, match=r"no weights of its network in model\.keras .*: copy it again"):
        load_keras(earlier(saved, data))
    assert not ran.exists()


def test_what_a_file_of_keras_says_of_layers_is_not_read(saved: Bundle, network, tmp_path: Path):
    """Safe mode has been got round; there is nothing to get round where the description is left alone."""
    source = zipfile.ZipFile(io.BytesIO(saved_by_keras(network, "old.keras", tmp_path)))
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"no description at all" if name == "config.json" else source.read(name))
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(load_keras(earlier(saved, changed.getvalue()))(image), network(image))


def with_weights_file(saved: Bundle, data: bytes) -> Bundle:
    """The directory with other weights, and the hash of their file put right."""
    folder = Path(saved.url)
    (folder / "weights.npz").write_bytes(data)
    return saved.with_files("weights.npz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"w0000": np.zeros(3, np.float32)}, "its arrays are not w0000 to w"),
        ({"w0000": np.array([print], object)}, "its arrays are not w0000 to w"),
        (None, "File is not a zip file"),
    ],
)
def test_weights_that_are_none_of_this_network_are_refused(saved: Bundle, arrays, said: str):
    buffer = io.BytesIO()
    if arrays is not None:
        np.savez(buffer, **arrays)
    with pytest.raises(ModelError, match=f"holds no weights of its network in weights.npz .*{said}"):
        load_keras(with_weights_file(saved, buffer.getvalue()))


def test_a_pickled_array_among_the_weights_is_not_unpickled(saved: Bundle, network):
    buffer = io.BytesIO()
    weights = {f"w{place:04}": array for place, array in enumerate(network.get_weights())}
    np.savez(buffer, **weights | {"w0001": np.array([print], object)})
    with pytest.raises(ModelError, match="holds no weights of its network"):
        load_keras(with_weights_file(saved, buffer.getvalue()))


def test_other_weights_than_the_bundle_says_are_refused(saved: Bundle, network):
    other = packed([array + 1 for array in network.get_weights()])
    with pytest.raises(ModelError, match=r"weights\.npz holds other weights than it says"):
        load_keras(with_weights_file(saved, other))


def test_the_seal_is_of_every_file(saved: Bundle):
    assert Bundle.load(saved.url, saved.seal) == saved
    (Path(saved.url) / "openvino").mkdir()
    seals = {saved.seal}
    for content in ("<net/>", "<another/>"):
        (Path(saved.url) / "openvino" / "model.xml").write_text(content)
        seals.add(saved.with_files("openvino/model.xml").seal)
    assert len(seals) == 3, "the same model_id, but not the same files"
    assert saved.with_files(inference={"precision": "bfloat16"}).seal not in seals
    with pytest.raises(
        ModelError, match=f"has the seal [0-9a-f]{{32}}, not {saved.seal}: get the model again from who"
    ):
        Bundle.load(saved.url, saved.seal)


def test_what_is_written_outlives_a_power_cut(tmp_path: Path, network, monkeypatch: pytest.MonkeyPatch):
    """Each file is on the disk before it has its name, and each name before the index is written."""
    import os

    real_sync, real_rename, events = os.fsync, os.replace, []

    def sync(handle: int) -> None:
        real_sync(handle)
        events.append(f"flush {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")

    def rename(source: str, target: str) -> None:
        real_rename(source, target)
        events.append(f"name {Path(target).name}")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    save_bundle(bundle_at(tmp_path / "model"), network)
    flat = ["flush draft" if event.endswith(".draft") else event for event in events]
    assert flat == [
        *("flush draft", "name weights.npz", "flush model"),
        *("flush draft", "name bundle.json", "flush model"),
    ]
