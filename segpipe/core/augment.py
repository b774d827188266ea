"""Random changes of training slices that a network should not mind; the caller holds the dice.

Images are float32 (H, W, C), normalised to unit deviation; labels are uint8 (H, W) and move with them.
Inputs are never changed.
"""

import numpy as np

_DEGREES = 15.0
_SCALES = (0.85, 1.15)
_GAIN = 0.1
_SHIFT = 0.1


def augment(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A slice after flips, a rotation, a scaling and an intensity shift: all of them, in one resampling."""
    image, labels = flip(image, labels, rng)
    image, labels = _resample(image, labels, _rotation(rng) @ _scaling(rng))
    return shift_intensity(image, rng), labels


def flip(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns reversed, each with probability one half."""
    rows, columns = (slice(None, None, step) for step in 1 - 2 * rng.integers(0, 2, 2))
    return np.ascontiguousarray(image[rows, columns]), np.ascontiguousarray(labels[rows, columns])


def rotate(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turned about the middle by up to 15 degrees either way."""
    return _resample(image, labels, _rotation(rng))


def scale(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Enlarged about the middle by 0.85 to 1.15; the shape stays."""
    return _resample(image, labels, _scaling(rng))


def shift_intensity(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each channel times 0.9 to 1.1 and shifted by up to 0.1 deviations."""
    channels = image.shape[-1]
    gain = rng.uniform(1 - _GAIN, 1 + _GAIN, channels).astype(np.float32)
    return image * gain + rng.uniform(-_SHIFT, _SHIFT, channels).astype(np.float32)


def _rotation(rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(rng.uniform(-_DEGREES, _DEGREES))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _scaling(rng: np.random.Generator) -> np.ndarray:
    return np.eye(2) / rng.uniform(*_SCALES)


def _resample(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear for the image, nearest for the labels; `matrix` maps new to old offsets from the middle.

    Beyond the border the image goes on as it ends, for its background is not 0 once it is normalised.
    """
    from scipy.ndimage import affine_transform

    middle = (np.array(labels.shape) - 1) / 2
    offset = middle - matrix @ middle
    moved = np.empty_like(image)
    for channel in range(image.shape[-1]):
        moved[..., channel] = affine_transform(image[..., channel], matrix, offset, order=1, mode="nearest")
    return moved, affine_transform(labels, matrix, offset, order=0, mode="constant")
