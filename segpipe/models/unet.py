"""U-Nets in Keras, 2D (Ronneberger et al. 2015, arXiv 1505.04597) and 3D (Çiçek et al. 2016, arXiv 1606.06650).

Each level has two 3 x 3 (x 3) convolutions, each normalised and passed through a leaky ReLU. Instance normalisation is
the default: it knows nothing of the other slices of a batch, so that a worker computes the same whatever its share of
the batch.
"""

from collections.abc import Sequence

import tensorflow as tf

from segpipe.errors import UsageError
from segpipe.models.autograph import leave_no_files
from segpipe.settings import NetworkSettings

leave_no_files()

_GROUPS = 8
_SLOPE = 0.01
_WORTH_PIXELS, _MOST_SPLIT = 4096, 32  # where normalising image by image is the faster way
_MIRRORS = ((1, 1), (-1, 1), (1, -1), (-1, -1))
_RARE = -2.0  # log odds of a region before training: most pixels belong to none


@tf.keras.utils.register_keras_serializable("segpipe")
class InstanceNormalisation(tf.keras.layers.Layer):
    """Zero mean and unit deviation of each channel of each image (Ulyanov et al. 2016, arXiv 1607.08022).

    Any number of spatial axes; scaled and shifted by one learnt number per channel. Statistics are taken in float32.
    """

    epsilon = 1e-5

    def build(self, input_shape: tf.TensorShape) -> None:
        """Make the learnt scale and shift."""
        channels = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=channels, initializer="ones", dtype=tf.float32)
        self.beta = self.add_weight(name="beta", shape=channels, initializer="zeros", dtype=tf.float32)
        super().build(input_shape)

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """Normalise a batch (N, ..., C); dtype and shape stay."""
        if self._is_worth_splitting(image):
            return tf.concat([self._of_one(one) for one in tf.split(image, image.shape[0])], axis=0)
        axes = list(range(1, image.shape.rank - 1))
        mean, variance = tf.nn.moments(tf.cast(image, tf.float32), axes, keepdims=True)
        scale = tf.cast(self.gamma, tf.float32) * tf.math.rsqrt(variance + self.epsilon)
        shift = tf.cast(self.beta, tf.float32) - mean * scale
        return image * tf.cast(scale, image.dtype) + tf.cast(shift, image.dtype)

    def _is_worth_splitting(self, image: tf.Tensor) -> bool:
        """Whether the batch is of known size and its images large: in training, where steps are alike."""
        images, pixels = image.shape[0], image.shape[1:-1].num_elements()
        known = images is not None and images <= _MOST_SPLIT and image.dtype == tf.float32
        return known and (pixels is None or pixels >= _WORTH_PIXELS)

    def _of_one(self, image: tf.Tensor) -> tf.Tensor:
        """One image (1, ..., C): to TensorFlow its batch, whose normalisation is one operation, as is its gradient."""
        plane = tf.reshape(image, (1, -1, tf.shape(image)[-2], image.shape[-1]))
        plane, *_ = tf.compat.v1.nn.fused_batch_norm(plane, self.gamma, self.beta, epsilon=self.epsilon)
        return tf.reshape(plane, tf.shape(image))

    def get_config(self) -> dict[str, object]:
        """Name and policy, which is all there is; stated, for Keras cannot derive it from a policy object."""
        return super().get_config()


class _PartialPadding:
    """Makes a convolution of odd size count only what lies inside the image (Liu et al. 2018, arXiv 1811.11718).

    Where part of the window lies beyond the border, the zeros there dim the result; it is multiplied with the number of
    voxels of the window over the number of those inside. The bias is added afterwards.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution without its bias."""
        result = super().convolution_op(inputs, kernel)  # type: ignore[misc]
        spatial = kernel.shape.rank - 2
        for axis, size in enumerate(kernel.shape[:spatial], 1):
            if size == 1:
                continue
            length = tf.shape(inputs)[axis]
            place, reach = tf.range(length), size // 2
            inside = tf.minimum(place + reach + 1, length) - tf.maximum(place - reach, 0)
            ratio = tf.cast(size, tf.float32) / tf.cast(inside, tf.float32)
            shape = [-1 if other == axis else 1 for other in range(spatial + 2)]
            result *= tf.cast(tf.reshape(ratio, shape), result.dtype)
        return result


@tf.keras.utils.register_keras_serializable("segpipe")
class PartialConv2D(_PartialPadding, tf.keras.layers.Conv2D):
    """A 2D convolution with partial-convolution padding."""


@tf.keras.utils.register_keras_serializable("segpipe")
class PartialConv3D(_PartialPadding, tf.keras.layers.Conv3D):
    """A 3D convolution with partial-convolution padding."""


def build_unet(
    settings: NetworkSettings, channels: int, regions: int, seed: int = 0, supervised_levels: int = 0
) -> tf.keras.Model:
    """A U-Net from images (N, [D,] H, W, channels) to probabilities float32 (N, [D,] H, W, regions).

    Fully convolutional: every side must be a multiple of 2^depth. A voxel may lie in several regions, so each has its
    own sigmoid. Same settings and seed, same initial weights. Raises UsageError for settings that make no network.

    For training there may be further outputs, of so many lower levels of the decoder, each half as long as the one
    before (deep supervision, Lee et al. 2015, arXiv 1409.5185); they change nothing in the first.
    """
    _check(settings)
    policy = tf.keras.mixed_precision.Policy("mixed_bfloat16" if settings.precision == "bfloat16" else "float32")
    layers = _Layers(settings, policy, seed)
    image = tf.keras.Input((*[None] * settings.axes, channels), name="image")
    x = image
    skips = []
    for level in range(settings.depth):
        x = layers.block(x, f"down{level}", settings.filters << level)
        skips.append(x)
        x = layers.halve(x, f"down{level}_pool")
    x = layers.block(x, "bottom", settings.filters << settings.depth)
    if settings.dropout:
        x = tf.keras.layers.Dropout(settings.dropout, seed=seed, name="bottom_dropout", dtype=policy)(x)
    decoded: list[tf.Tensor] = []
    for level in reversed(range(settings.depth)):
        x = layers.double(x, f"up{level}_double", settings.filters << level)
        x = tf.keras.layers.Concatenate(name=f"up{level}_join", dtype=policy)([skips[level], x])
        x = layers.block(x, f"up{level}", settings.filters << level)
        decoded.insert(0, x)
    outputs = [layers.regions(x, regions, str(level or "")) for level, x in enumerate(decoded[: supervised_levels + 1])]
    return tf.keras.Model(image, outputs if supervised_levels else outputs[0], name="unet")


@tf.keras.utils.register_keras_serializable("segpipe")
class MirrorImages(tf.keras.layers.Layer):
    """A batch (N, ..., H, W, C) and its mirror images in rows, columns and both: (4 N, ..., H, W, C)."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Each mirror of the whole batch after the other."""
        return tf.concat([_turned(images, *which) for which in _MIRRORS], axis=0)


@tf.keras.utils.register_keras_serializable("segpipe")
class MeanOfMirrorImages(tf.keras.layers.Layer):
    """What was found in `MirrorImages`, each turned back, as one mean (N, ..., H, W, R)."""

    def call(self, found: tf.Tensor) -> tf.Tensor:
        """The mean; its dtype stays."""
        parts = tf.split(found, len(_MIRRORS), axis=0)
        return tf.add_n([_turned(part, *which) for part, which in zip(parts, _MIRRORS, strict=True)]) / len(_MIRRORS)


def _turned(images: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """Images (..., H, W, C) with rows and columns in steps of 1 or -1."""
    return images[..., ::rows, ::columns, :]


def build_ensemble(settings: NetworkSettings, channels: int, regions: int) -> tf.keras.Model:
    """The U-Nets of a model, untrained, as the one network that `mean_of` makes of them."""
    return mean_of([build_unet(settings, channels, regions) for _ in range(settings.members)])


def mean_of(members: Sequence[tf.keras.Model]) -> tf.keras.Model:
    """The network that answers with the mean of what its members say (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Its weights are theirs, one member after another. A single member is that network itself.
    """
    if len(members) == 1:
        return members[0]
    image = tf.keras.Input(members[0].input_shape[1:], name="image")
    apart = [tf.keras.Model(one.input, one.outputs[0], name=f"member{place}") for place, one in enumerate(members)]
    answers = [one(image) for one in apart]
    return tf.keras.Model(image, tf.keras.layers.Average(name="mean_of_members", dtype="float32")(answers))


def to_segment(network: tf.keras.Model, settings: NetworkSettings) -> tf.keras.Model:
    """A trained network as its settings say that it segments; the weights are the same.

    By one look or `mirrored`, and where it was trained on `pooled` voxels, from voxels to voxels.
    """
    network = mirrored(network) if settings.sees_mirror_images else network
    return pooled(network, settings.pool) if settings.pool > 1 else network


def pooled(network: tf.keras.Model, pool: int) -> tf.keras.Model:
    """The 3D network that sees the means of cubes of `pool` voxels an edge, with its answers spread over voxels again.

    Every side must be a multiple of `pool` times what `network` asks for.
    """
    image = tf.keras.Input(network.input_shape[1:], name="image")
    means = tf.keras.layers.AveragePooling3D(pool, name="means", dtype="float32")(image)
    spread = network(means)
    for turn in range(pool.bit_length() - 1):
        spread = TwiceAsFine(name=f"finer{turn or ''}", dtype="float32")(spread)
    return tf.keras.Model(image, spread, name=f"pooled_{network.name}")


@tf.keras.utils.register_keras_serializable("segpipe")
class TwiceAsFine(tf.keras.layers.Layer):
    """Volumes (N, D, H, W, R) with each voxel cut into eight: linear between their middles, constant beyond the last.

    Only sums of copies, which every runtime computes alike; resampling layers differ in where middles lie.
    """

    def call(self, coarse: tf.Tensor) -> tf.Tensor:
        """(N, 2 D, 2 H, 2 W, R); the dtype stays."""
        fine = coarse
        for axis in (1, 2, 3):
            before, after = _neighbours(fine, axis)
            halves = tf.stack([0.75 * fine + 0.25 * before, 0.75 * fine + 0.25 * after], axis=axis + 1)
            shape = tf.unstack(tf.shape(fine))
            shape[axis] *= 2
            fine = tf.reshape(halves, tf.stack(shape))
        fine.set_shape([*coarse.shape[:1], None, None, None, coarse.shape[-1]])
        return fine


def _neighbours(volume: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The volume moved by one voxel each way along an axis, the voxel at the border repeated."""
    count = tf.shape(volume)[axis]
    places = tf.range(count)
    before = tf.gather(volume, tf.maximum(places - 1, 0), axis=axis)
    return before, tf.gather(volume, tf.minimum(places + 1, count - 1), axis=axis)


def mirrored(network: tf.keras.Model) -> tf.keras.Model:
    """The network that gives the mean of what `network` finds in the four mirror images of an image's rows and columns.

    It averages out what a network has not learnt to see from every side (test-time augmentation, as in nnU-Net, Isensee
    et al. 2021, doi 10.1038/s41592-020-01008-z). Inputs, outputs and weights are those of `network`.
    """
    image = tf.keras.Input(network.input_shape[1:], name="image")
    found = MeanOfMirrorImages(name="mean")(network(MirrorImages(name="mirrors")(image)))
    return tf.keras.Model(image, found, name=f"mirrored_{network.name}")


class _Layers:
    """The layers of one network: settings, compute policy, and one seed per kernel."""

    def __init__(self, settings: NetworkSettings, policy: tf.keras.mixed_precision.Policy, seed: int):
        self._settings = settings
        self._policy = policy
        self._seed = seed * 1000
        dimensions = settings.axes
        keras = tf.keras.layers
        kinds = {"zeros": (keras.Conv2D, keras.Conv3D), "partial": (PartialConv2D, PartialConv3D)}
        self._convolution = kinds[settings.padding][dimensions - 2]
        self._transposed = {2: keras.Conv2DTranspose, 3: keras.Conv3DTranspose}[dimensions]
        self._pool = {2: keras.MaxPool2D, 3: keras.MaxPool3D}[dimensions]
        self._resize = {2: keras.UpSampling2D, 3: keras.UpSampling3D}[dimensions]

    def convolution(self, filters: int, size: int, name: str, **options: object) -> tf.keras.layers.Layer:
        """A convolution that keeps the shape."""
        bias = options.pop("bias", None)
        return self._convolution(
            filters,
            size,
            padding="same",
            use_bias=bias is not None,
            bias_initializer=bias,
            kernel_initializer=self._he(),
            name=name,
            dtype=options.pop("dtype", self._policy),
        )

    def block(self, x: tf.Tensor, name: str, filters: int) -> tf.Tensor:
        """Twice: convolution, normalisation, leaky ReLU."""
        for turn in "ab":
            bias = "zeros" if self._settings.normalisation == "none" else None
            x = self.convolution(filters, 3, f"{name}{turn}_convolution", bias=bias)(x)
            x = self._normalised(x, f"{name}{turn}_normalisation", filters)
            x = tf.keras.layers.LeakyReLU(_SLOPE, name=f"{name}{turn}_activation", dtype=self._policy)(x)
        return x

    def regions(self, x: tf.Tensor, count: int, suffix: str) -> tf.Tensor:
        """A probability per voxel and region, float32."""
        bias = tf.keras.initializers.Constant(_RARE)
        logits = self.convolution(count, 1, f"logits{suffix}", bias=bias, dtype="float32")(x)
        return tf.keras.layers.Activation("sigmoid", name=f"regions{suffix}", dtype="float32")(logits)

    def halve(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Half the resolution, by the greatest of each 2 x 2 (x 2)."""
        return self._pool(2, name=name, dtype=self._policy)(x)

    def double(self, x: tf.Tensor, name: str, filters: int) -> tf.Tensor:
        """Twice the resolution, by a transposed convolution, or by repeating and mixing."""
        if self._settings.upsampling == "transposed":
            kernel = self._he()
            return self._transposed(filters, 2, strides=2, kernel_initializer=kernel, name=name, dtype=self._policy)(x)
        x = self.convolution(filters, 1, f"{name}_mix", bias="zeros")(x)  # before the resize, where it costs a quarter
        return self._resize(2, name=name, dtype=self._policy)(x)

    def _normalised(self, x: tf.Tensor, name: str, filters: int) -> tf.Tensor:
        keras = tf.keras.layers
        kind = self._settings.normalisation
        if kind == "none":
            return x
        if kind == "instance":
            return InstanceNormalisation(name=name, dtype=self._policy)(x)
        if kind == "group":
            groups = min(_GROUPS, filters)
            return keras.GroupNormalization(groups, epsilon=1e-5, name=name, dtype=self._policy)(x)
        return keras.BatchNormalization(name=name, dtype=self._policy)(x)

    def _he(self) -> tf.keras.initializers.Initializer:
        self._seed += 1
        return tf.keras.initializers.HeNormal(self._seed)


def _check(settings: NetworkSettings) -> None:
    if settings.axes not in (2, 3):
        raise UsageError(f"A network of {settings.dimensions} dimensions cannot be built", "use --dimensions 2 or 3")
    if settings.filters < 1 or not 1 <= settings.depth <= 8:
        raise UsageError(
            f"A network of {settings.filters} filters and depth {settings.depth} cannot be built",
            "use --filters 1 or more and --depth 1 to 8",
        )
    if settings.normalisation == "group" and settings.filters % min(_GROUPS, settings.filters):
        raise UsageError(
            f"{settings.filters} filters cannot be shared equally by {_GROUPS} groups",
            f"use --filters that are a multiple of {_GROUPS}",
        )
    if not 0 <= settings.dropout < 1:
        raise UsageError(f"A dropout of {settings.dropout} is not valid", "use --dropout of at least 0 and below 1")
