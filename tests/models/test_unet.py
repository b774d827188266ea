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


@pytest.mark.parametrize("shape", [(3, 64, 72, 4), (2, 4, 40, 48, 2)], ids=["slices", "patches"])
def test_large_images_are_normalised_one_by_one_to_the_same_numbers(shape: tuple[int, ...], monkeypatch):
    import tensorflow as tf

    from segpipe.models import unet

    layer = unet.InstanceNormalisation()
    layer.build(shape)
    layer.set_weights([np.linspace(0.5, 2, shape[-1]), np.linspace(-1, 1, shape[-1])])
    rng = np.random.default_rng(0)
    image, seen = (tf.constant(rng.normal(3, 2, shape), tf.float32) for _ in range(2))

    def traced():
        @tf.function
        def results(image):
            with tf.GradientTape() as tape:
                tape.watch(image)
                found = layer(image)
            return found, *tape.gradient(found, [image, *layer.trainable_weights], output_gradients=seen)

        kinds = [operation.type for operation in results.get_concrete_function(image).graph.get_operations()]
        return kinds.count("FusedBatchNormV3"), results(image)

    one_by_one, fast = traced()
    monkeypatch.setattr(unet, "_WORTH_PIXELS", 1 << 30)
    together, plain = traced()
    assert (one_by_one, together) == (shape[0], 0)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max())  # some are sums of 14,000 numbers of float32


def test_supervised_levels_are_further_outputs_of_the_same_network():
    from segpipe.models.unet import build_unet

    plain = build(depth=3)
    supervised = build_unet(NetworkSettings(filters=4, depth=3), 4, 3, 0, supervised_levels=2)
    image = np.random.default_rng(0).normal(size=(2, 24, 16, 4)).astype(np.float32)
    outputs = supervised(image)
    assert [tuple(output.shape) for output in outputs] == [(2, 24, 16, 3), (2, 12, 8, 3), (2, 6, 4, 3)]
    np.testing.assert_array_equal(outputs[0], plain(image))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_partial_padding_does_not_dim_the_border(dimensions: int):
    """The mean of a window of what is inside: constant images stay, also at the border and for a single row."""
    import tensorflow as tf

    from segpipe.models.unet import PartialConv2D, PartialConv3D

    kind = {2: PartialConv2D, 3: PartialConv3D}[dimensions]
    mean = kind(1, 3, padding="same", kernel_initializer=tf.keras.initializers.Constant(3.0**-dimensions))
    for shape in [(1, 5, 4, 6)[: dimensions + 1], (2, 1, 3, 2)[: dimensions + 1]]:
        np.testing.assert_allclose(mean(np.full((*shape, 1), 7, np.float32)).numpy(), 7, rtol=1e-5)


def test_partial_padding_by_hand():
    from segpipe.models.unet import PartialConv2D

    total = PartialConv2D(1, 3, padding="same", kernel_initializer="ones", bias_initializer="ones")
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    found = total(image).numpy()[0, ..., 0]
    assert found[1, 1] == 36 + 1
    assert found[0, 0] == (0 + 1 + 3 + 4) * 9 / 4 + 1
    assert found[0, 1] == (0 + 1 + 2 + 3 + 4 + 5) * 9 / 6 + 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_partial_padding_is_a_setting_that_is_saved(tmp_path, dimensions: int):
    import tensorflow as tf

    network = build(dimensions=dimensions, padding="partial", normalisation="none")
    zeros = build(dimensions=dimensions, normalisation="none")
    image = np.random.default_rng(0).normal(size=(1, *[16] * dimensions, 4)).astype(np.float32)
    assert network.count_params() == zeros.count_params()
    assert not np.allclose(network(image), zeros(image))
    network.save(tmp_path / "m.keras", save_format="keras")
    again = tf.keras.models.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(again(image), network(image))


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


@pytest.mark.parametrize("shape", [(2, 8, 12, 4), (1, 4, 8, 12, 4)], ids=["slices", "patches"])
def test_a_mirrored_network_sees_the_same_from_every_side(shape: tuple[int, ...]):
    from segpipe.models.unet import mirrored

    network = build(dimensions=len(shape) - 2)
    of_all_sides = mirrored(network)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    steps = [slice(None, None, step) for step in (1, -1)]
    sides = [(rows, columns, slice(None)) for rows in steps for columns in steps]
    found = [network(image[(..., *side)]).numpy()[(..., *side)] for side in sides]
    for side in sides:
        seen = of_all_sides(image[(..., *side)]).numpy()[(..., *side)]
        np.testing.assert_allclose(seen, np.mean(found, axis=0), atol=1e-6)
    assert np.abs(found[0] - found[3]).max() > 1e-3  # the network alone does not
    assert all((a == b).all() for a, b in zip(of_all_sides.get_weights(), network.get_weights(), strict=True))


def test_a_traced_network_leaves_no_files_behind(tmp_path, monkeypatch):
    """Not even where the process is ended without a chance to clear up, as Spark ends its workers."""
    import tempfile

    import tensorflow as tf

    from segpipe.models.autograph import leave_no_files
    from segpipe.models.unet import build_unet

    leave_no_files()  # again, which changes nothing
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @tf.function
    def rewritten(number):
        if number > 0:
            return tf.constant("more")
        return tf.constant("less")

    assert rewritten(tf.constant(1)).numpy() == b"more"
    build_unet(NetworkSettings(filters=4, depth=1), channels=1, regions=1)
    assert not list(tmp_path.rglob("*"))
