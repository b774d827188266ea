"""U-Nets: shapes, determinism, and that each image is treated by itself."""

import numpy as np
import pytest

from segpipe.errors import UsageError
from segpipe.settings import NetworkSettings

SMALL = {"filters": 4, "depth": 2}


def build(channels: int = 4, regions: int = 3, seed: int = 0, **settings: object):
    from segpipe.models.unet import build_unet

    return build_unet(NetworkSettings(**{**SMALL, **settings}), channels, regions, seed)


@pytest.mark.parametrize("normalisation", ["instance", "group", "batch", "none"])
@pytest.mark.parametrize("upsampling", ["transposed", "resized"])
def test_gives_a_probability_per_pixel_and_region(normalisation: str, upsampling: str):
    network = build(filters=8, normalisation=normalisation, upsampling=upsampling)
    image = np.random.default_rng(0).normal(size=(2, 24, 16, 4)).astype(np.float32)
    regions = network(image).numpy()
    assert regions.shape == (2, 24, 16, 3)
    assert regions.dtype == np.float32
    assert ((regions > 0) & (regions < 1)).all()


def test_in_three_dimensions():
    network = build(channels=2, regions=1, dimensions=3)
    assert network(np.zeros((1, 8, 12, 16, 2), np.float32)).shape == (1, 8, 12, 16, 1)


def test_bfloat16_computes_low_and_answers_in_float32():
    network = build(precision="bfloat16")
    assert network.get_layer("bottoma_convolution").compute_dtype == "bfloat16"
    assert network(np.zeros((1, 8, 8, 4), np.float32)).numpy().dtype == np.float32


def test_weights_of_the_paper_s_structure():
    """By hand: filters 4, depth 1, one channel, one region; 3 x 3 convolutions with scale and shift, no bias."""

    def block(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs

    up = 4 * 8 * 4 + 4
    assert build(1, 1, depth=1).count_params() == block(1, 4) + block(4, 8) + up + block(8, 4) + 4 + 1


def test_same_seed_same_weights():
    one, same, other = (build(seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_image_does_not_depend_on_its_batch():
    network = build()
    batch = np.random.default_rng(0).normal(size=(3, 16, 16, 4)).astype(np.float32)
    np.testing.assert_allclose(network(batch, training=True)[1:2], network(batch[1:2], training=True), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_instance_normalisation_gives_zero_mean_and_unit_deviation(dtype: str):
    from segpipe.models.unet import InstanceNormalisation

    image = np.random.default_rng(0).normal(5, 3, size=(2, 32, 32, 2)).astype(np.float32)
    result = np.asarray(InstanceNormalisation(dtype=dtype)(image)).astype(np.float32)
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(result.std(axis=(1, 2)), 1, atol=0.02)


@pytest.mark.parametrize("wrong", [{"dimensions": 4}, {"depth": 0}, {"filters": 0}, {"dropout": 1.0}])
def test_refuses_what_makes_no_network(wrong: dict[str, float]):
    with pytest.raises(UsageError, match="use --"):
        build(**wrong)
