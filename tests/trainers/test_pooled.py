"""A 3D network on the means of cubes of voxels: where its patches lie, what they hold, and what comes out in voxels."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.augment import augment_shares, surroundings
from segpipe.errors import ModelError, UsageError
from segpipe.models.bundle import SLICES, Bundle
from segpipe.settings import TrainSettings
from segpipe.trainers import train
from segpipe.trainers.contract import ScanPlan
from segpipe.trainers.plan import fitted, make_plan, slices_plan
from segpipe.trainers.pooled import PooledFeed, any_origin, innermost, mean_of_cubes, pooled_index
from segpipe.warehouse.runs import record_run
from tests.trainers.test_contract import train_until

SOLID = {"dimensions": 3, "depth": 2, "pool": 2, "batch_size": 2, "steps_per_epoch": None}


def row(spacing: tuple[float, ...] = (1.0, 1.0, 1.0), voxels: int = 50_000, edge: int = 130) -> dict:
    return {"spacing_mm": spacing, "label_counts": [{"voxels": voxels}], "brain_box": [0, edge, 0, edge, 0, edge]}


def scan_with(box: tuple[int, ...], split: str = "train") -> ScanPlan:
    return ScanPlan("s", "s", split, (99, 99, 99), box, np.zeros(1), np.ones(1))


@pytest.mark.parametrize(
    ("rows", "dimensions", "pool"),
    [
        ([row(), row()], 3, 2),
        ([row(), row(spacing=(5.0, 1.0, 1.0))], 2, 1),  # thick slices
        ([row(voxels=900), row(voxels=3000), row()], 2, 1),  # small lesions
        ([row(voxels=0)], 2, 1),
        ([row(edge=40)], 2, 1),
    ],
)
def test_dimensions_fit_the_scans_where_none_are_asked_for(rows, dimensions: int, pool: int):
    found = fitted(TrainSettings(), rows)
    assert (found.dimensions, found.pool) == (dimensions, pool)
    asked = TrainSettings(dimensions=5 - dimensions)
    assert fitted(asked, rows) == asked
    assert found.sees_mirror_images == (pool == 1), "a whole head gains next to nothing by it"
    assert replace(found, mirror=True).sees_mirror_images


def test_a_cube_is_its_mean_and_an_outline_keeps_its_place():
    volume = np.zeros((4, 4, 6, 2), np.int16)
    volume[:, :, 2:5, 1] = 8
    assert mean_of_cubes(volume, 2)[0, 0].tolist() == [[0, 0], [0, 8], [0, 4]]


def test_a_patch_lies_in_the_box_or_the_box_in_it():
    rng = np.random.default_rng(0)
    found = np.array([any_origin((10, 4, 6), (6, 6, 6), rng) for _ in range(200)])
    assert [sorted(set(axis)) for axis in found.T.tolist()] == [[0, 1, 2, 3, 4], [-2, -1, 0], [0]]


def test_as_many_patches_around_labels_as_elsewhere():
    box = (0, 10, 0, 33, 0, 16)
    index = pooled_index([scan_with(box), scan_with(box, "validation"), scan_with(box)], [True, True, False])
    assert index.scan.tolist() == [0] * 8 + [2] * 4
    assert index.foreground.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_shares_move_as_the_image_does():
    size = (6, 16, 12)
    wide = surroundings(size)
    shares = np.random.default_rng(3).random((*wide, 2)).astype(np.float32)
    for seed in range(6):
        image, moved = augment_shares(shares[..., :1] * 0, shares, size, np.random.default_rng(seed))
        assert image.shape == (*size, 1)
        again = augment_shares(shares[..., :1] * 0, shares[..., ::-1], size, np.random.default_rng(seed))[1]
        np.testing.assert_array_equal(moved, again[..., ::-1])
        assert moved.min() >= 0
        assert moved.max() <= 1


def test_examples_are_pooled_shared_out_and_repeatable(settings):
    plan = make_plan(settings(**SOLID))
    assert plan.crop == (16, 24, 24) or all(length % 8 == 0 for length in plan.crop)
    feed = PooledFeed(plan, 0, 1)
    shown = list(islice(feed.epoch(0), 3))
    for batch in shown:
        for image, shares in batch:
            assert image.shape == (*[length // 2 for length in plan.crop], 4)
            assert image.dtype == shares.dtype == np.float32
            assert shares.shape[-1] == 3
        assert batch[0][1].any()  # the lane of patches around labels
    one = list(islice(PooledFeed(plan, 1, 2).epoch(0), 3))
    assert [batch[0][0].tobytes() for batch in one] == [batch[1][0].tobytes() for batch in shown]
    assert innermost(shown[0][0][1]).max() in (1, 2, 3)


def test_a_pooled_training_is_exported_and_segments_voxels(settings, tables, tmp_path):
    """Trained for two steps; OpenVINO says what Keras says, of tiles of a patch."""
    from segpipe.models.bundle import load_keras
    from segpipe.runtimes import openvino
    from segpipe.runtimes.export.convert import convert

    asked = replace(settings(**SOLID), steps_per_epoch=2, epochs=1)
    plan = make_plan(asked)
    bundle = trained(asked)
    assert bundle.crop == plan.crop
    assert bundle.multiple == 8
    assert (bundle.network["pool"], bundle.network["mirror"]) == (2, False)
    with pytest.raises(ModelError, match=r"sees volumes and no slices, .* each once: leave out --looks"):
        openvino.files(bundle, "float32", "doubt")
    network = load_keras(Bundle.load(bundle.url))
    image = np.random.default_rng(0).normal(size=(1, 8, 16, 16, 4)).astype(np.float32)
    assert network(image).shape == (1, 8, 16, 16, 3)
    assert all(convert(network, replace(bundle, network={**bundle.network, "beside": None})))


def test_a_network_of_slices_is_trained_beside_and_answers_together(settings, tables):
    """It is the 2D network that is trained alone; it can be left out and taken back without another step."""
    asked = replace(settings(**SOLID), steps_per_epoch=2, epochs=1)
    both = trained(asked)
    slices = both.slices()
    assert (slices.network["dimensions"], slices.network["mirror"], len(slices.crop)) == (2, False, 2)
    alone = trained(replace(settings(depth=2), model=f"{asked.model}-2d", mirror=False, batch_size=16, **FEW))
    assert slices.weights_sha256 == alone.weights_sha256
    assert trained(asked) == both, "the same command makes nothing anew"
    written = checkpoints(both.url)

    volumes = trained(replace(asked, slices=False, epochs=None))  # of which there would be more without slices
    assert not volumes.has_slices
    assert volumes.weights_sha256 == both.weights_sha256
    assert volumes.model_id != both.model_id
    assert trained(asked) == volumes, "the same command keeps what stands"
    assert trained(replace(asked, slices=True)).model_id == both.model_id
    assert checkpoints(both.url) == written

    shutil.rmtree(Path(both.url, SLICES))
    assert trained(asked).model_id == both.model_id, "what somebody has deleted is trained again"


def test_neighbours_are_those_of_the_network_of_slices(settings):
    """They are a part of what was learnt: another number is another training, and what is asked for goes through."""
    asked = replace(settings(**SOLID), steps_per_epoch=2, epochs=1)
    alone = trained(asked)
    assert "neighbours" not in alone.network | alone.slices().network, "as earlier versions have written it"
    with pytest.raises(ModelError, match=r"holds a training with --neighbours 0, not 2: .* --neighbours 0 to go on"):
        trained(replace(asked, neighbours=2))
    near = trained(replace(asked, neighbours=2, model=f"{asked.model}-near"))
    assert (near.channels, near.slices().channels, near.slices().neighbours) == (4, 12, 2)
    assert near.weights_sha256 == alone.weights_sha256


def test_a_killed_training_goes_on_with_the_network_that_it_had_come_to(settings):
    asked = replace(settings(**SOLID), steps_per_epoch=2, epochs=2)
    whole = trained(asked)
    other = replace(asked, model=f"{asked.model}-other")
    shutil.copytree(Path(asked.model, "checkpoints"), Path(other.model, "checkpoints"))
    train_until(replace(slices_plan(other).settings, patch_size=None), epoch=1, step=1)
    assert trained(other).model_id == whole.model_id


def test_both_networks_together_are_shown_little_more_than_one(settings):
    """As many steps of each as fit into the time that a small cohort has; --epochs says it for both."""
    asked = settings(**SOLID)
    plans = [make(replace(asked, epochs=None)) for make in (make_plan, slices_plan)]
    assert [plan.epochs * plan.steps >= least for plan, least in zip(plans, (800, 600), strict=True)] == [True, True]
    assert [(plan.epochs - 1) * plan.steps < least for plan, least in zip(plans, (800, 600), strict=True)] == [
        True,
        True,
    ]
    alone = make_plan(replace(asked, epochs=None, slices=False))
    assert alone.epochs > plans[0].epochs
    assert [make(replace(asked, epochs=3)).epochs for make in (make_plan, slices_plan)] == [3, 3]
    assert slices_plan(replace(asked, trainer="orca", workers=3)).settings.batch_size == 18
    with pytest.raises(UsageError, match="sees slices alone: leave out --slices"):
        make_plan(settings(dimensions=2, slices=True))


FEW = {"steps_per_epoch": 2, "epochs": 1}


def trained(asked: TrainSettings) -> Bundle:
    with record_run(None, "train", asked) as run:
        return train(asked, None, run)


def checkpoints(url: str) -> list[tuple[str, int]]:
    """The checkpoints of all networks of a model, as they were written."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in Path(url).glob("**/checkpoints/*"))
