"""Glioma scans made from nothing, for the demo, tests and benchmarks. They resemble BraTS scans; they are no patients.

A head is built in millimetres: a brain of cerebrum, temporal lobes, cerebellum and brainstem with a folded cortex,
ventricles and deep grey matter, a tumour of nested irregular shells that pushes the ventricles aside, an intensity per
tissue and modality, a bias field, noise. Contrasts follow those of glioma in BraTS (Menze et al. 2015,
10.1109/TMI.2014.2377694): oedema is bright on FLAIR and T2, the enhancing rim on T1ce, the necrotic core is dark there.
"""

from dataclasses import dataclass, field

import numpy as np

from segpipe.core.orientation import spacing_mm as spacing_of

Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float]]

MODALITIES = ("flair", "t1", "t1ce", "t2")
FIELD_MM = (155.0, 196.0, 196.0)

# Mean signal, white matter of T1 being 1.
_TISSUES = ("csf", "grey", "white", "core", "oedema", "enhancing", "vessel")
_SIGNAL = {
    "flair": (0.30, 0.74, 0.62, 0.66, 1.05, 0.92, 0.50),
    "t1": (0.34, 0.70, 1.00, 0.50, 0.70, 0.68, 0.75),
    "t1ce": (0.34, 0.70, 0.95, 0.44, 0.68, 1.35, 1.25),
    "t2": (1.25, 0.70, 0.52, 1.08, 1.02, 0.86, 0.60),
}
_LABELS = {"core": 1, "oedema": 2, "enhancing": 4}
_PLAIN_SHARE = 0.15

# Middle and half-axes, mm, along (S, P, L); those off the midline are meant on both sides.
_CEREBRUM: Ellipsoid = ((2.0, 0.0, 0.0), (62.0, 82.0, 63.0))
_TEMPORAL: Ellipsoid = ((-20.0, -14.0, 37.0), (26.0, 42.0, 25.0))
_CEREBELLUM: Ellipsoid = ((-38.0, 44.0, 18.0), (25.0, 32.0, 35.0))
_BRAINSTEM: Ellipsoid = ((-42.0, 16.0, 0.0), (34.0, 13.0, 14.0))
_VENTRICLES: tuple[Ellipsoid, ...] = (
    ((20.0, -2.0, 8.0), (6.0, 32.0, 6.0)),
    ((14.0, -28.0, 8.5), (9.0, 10.0, 5.0)),
    ((12.0, 30.0, 19.0), (9.0, 17.0, 6.5)),
    ((2.0, 4.0, 0.0), (10.0, 13.0, 2.5)),
)
_DEEP_GREY: tuple[Ellipsoid, ...] = (
    ((6.0, 10.0, 11.0), (9.0, 14.0, 8.0)),
    ((5.0, -6.0, 25.0), (11.0, 17.0, 5.5)),
    ((14.0, -18.0, 15.0), (9.0, 13.0, 4.5)),
)
_FOLIUM_MM = 7.0
_GYRUS_KNOT_MM = 7.8
_SULCUS_MM = 21.0
_FISSURE_MM = 32.0
_PIA_MM = 0.9
_CORTEX_MM = 3.4


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """One generated scan; arrays have the index order (slice, row, column) with axes S, P, L.

    `images` are int16 (S, H, W) per modality with background exactly 0 and brain above 0; `mask` is uint8 with the
    BraTS labels 1, 2, 4; `affine` maps an index to RAS+ mm. `array.T` has the axis order L, P, S of BraTS files, and
    `affine[:, [2, 1, 0, 3]]` is its affine.
    """

    images: dict[str, np.ndarray]
    mask: np.ndarray
    affine: np.ndarray = field(repr=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along slice, row and column."""
        slices, rows, columns = spacing_of(self.affine).tolist()
        return slices, rows, columns


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """Share of each tissue in each voxel, (S, H, W) float32, and what the tumour and the distractors need to know."""

    brain: np.ndarray
    csf: np.ndarray
    grey: np.ndarray
    vessel: np.ndarray
    ventricle_mm: np.ndarray


def glioma(
    rng: np.random.Generator,
    shape: tuple[int, int, int] = (48, 96, 96),
    spacing_mm: tuple[float, float, float] | None = None,
) -> SyntheticScan:
    """A scan of a brain with one glioma, decided by `rng` alone.

    `shape` is slices, rows, columns; without `spacing_mm` the voxels are such that the field of view is `FIELD_MM`,
    which holds the whole brain. About one tumour in seven has no enhancing part (label 4), as some low-grade gliomas.
    Raises ValueError if the shape has less than 8 voxels on a side.
    """
    if len(shape) != 3 or min(shape) < 8:
        raise ValueError(f"a scan has three sides of at least 8 voxels, not {shape}")
    spacing = np.array(spacing_mm or [extent / count for extent, count in zip(FIELD_MM, shape, strict=True)])
    points = _grid(shape, spacing)
    middle, radius = _place(np.array(shape) * spacing, rng)
    anatomy = _anatomy(_deformed(points, spacing, middle, radius, rng), spacing, rng)
    mask = _tumour(points, spacing, middle, radius, anatomy, rng)
    shares = _shares(anatomy, mask, spacing, rng)
    images = {modality: _image(modality, shares, anatomy, spacing, rng) for modality in MODALITIES}
    return SyntheticScan(images, mask, _affine(shape, spacing))


def _affine(shape: tuple[int, int, int], spacing: np.ndarray) -> np.ndarray:
    """Axes S, P, L with the middle of the field at the origin."""
    affine = np.zeros((4, 4))
    slices, rows, columns = spacing.tolist()
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = slices, -rows, -columns, 1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _grid(shape: tuple[int, int, int], spacing: np.ndarray) -> np.ndarray:
    """Positions (3, S, H, W) float32, mm from the middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing.tolist(), strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _place(extent: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Middle (3,) and mean radius, mm, of the tumour with its oedema: in one hemisphere's white matter, and in view."""
    middle = np.array([rng.uniform(0, 38), rng.uniform(-45, 45), rng.choice((-1, 1)) * rng.uniform(22, 40)])
    middle = np.clip(middle, -0.3 * extent, 0.3 * extent)
    return middle.astype(np.float32), float(np.clip(24 * np.exp(rng.normal(0, 0.25)), 16, 36))


def _deformed(
    points: np.ndarray, spacing: np.ndarray, middle: np.ndarray, radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Where in the standard brain each voxel lies: another size, a tilt, a smooth warp, a push by the tumour."""
    shape = points.shape[1:]
    size = rng.normal(1, 0.03, 3).clip(0.92, 1.06)
    tilt = np.eye(3) + np.cross(np.eye(3), rng.normal(0, 0.05, 3))
    away = points - middle[:, None, None, None]
    distance = np.sqrt((away**2).sum(axis=0))
    push = rng.uniform(0.15, 0.4) * np.exp(-((distance / (1.8 * radius)) ** 2))
    placed = _turned(tilt / size, points - away * push)
    for axis in range(3):
        placed[axis] += 2.5 * _smooth(shape, spacing, 27, rng)
    placed[0] += 2.0
    return placed


def _turned(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`matrix @ points`, without BLAS: its sums depend on the number of threads, and a seed has to give one scan."""
    return np.stack([row[0] * points[0] + row[1] * points[1] + row[2] * points[2] for row in matrix.tolist()])


def _anatomy(points: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> _Anatomy:
    from scipy.ndimage import distance_transform_edt

    shape = points.shape[1:]
    edge = float(spacing.mean()) * 0.3
    cerebrum, cerebellum, stem = _parts(points)
    level = np.maximum.reduce([cerebrum, cerebellum, stem])
    brain = _largest(level > 0.8 * _smooth(shape, spacing, 9, rng))
    depth = distance_transform_edt(brain, sampling=spacing).astype(np.float32) - 0.5 * float(spacing.min())
    ventricle = np.maximum.reduce([_level(points, part) for part in _VENTRICLES]) + rng.normal(0.5, 0.8)
    deep = np.maximum.reduce([_level(points, part) for part in _DEEP_GREY])

    is_stem = stem > np.maximum.reduce([cerebrum, cerebellum, np.zeros_like(stem)])
    folds = np.where(cerebellum > np.maximum(cerebrum, 0), _folium_mm(points), _sulcus_mm(points, level, spacing, rng))
    pia = np.where(is_stem, depth, np.minimum(depth, folds))
    csf = np.maximum(_soft((_PIA_MM - pia) / edge), _soft(ventricle / edge))
    grey = np.maximum(_soft((_CORTEX_MM - pia) / edge), 0.8 * _soft(deep / edge))
    grey = np.where(is_stem, 0.35, grey) * (1 - csf)
    sinus = 0.8 * _soft((1.5 - np.abs(points[2])) / edge) * _soft((5 - depth) / edge) * (points[0] > 0)
    vessel = np.maximum(sinus, csf * _soft(4 * (_smooth(shape, spacing, 4, rng) - 2.2)))
    return _Anatomy(brain, csf, grey, vessel * (ventricle < 0), ventricle)


def _parts(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, mm, in the cerebrum, which is flat below, with its temporal lobes, in the cerebellum, in the brainstem."""
    flattened = points.copy()
    flattened[0] *= np.where(points[0] < 0, 1.9, 1)
    cerebrum = np.maximum(_level(flattened, _CEREBRUM, 2.2), _level(points, _TEMPORAL))
    return cerebrum, _level(points, _CEREBELLUM), _level(points, _BRAINSTEM)


def _sulcus_mm(points: np.ndarray, level: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About the distance, mm, to the nearest sulcus or the fissure between the hemispheres, both of limited depth."""
    sulcus_depth = _SULCUS_MM + 4 * _smooth(level.shape, spacing, 12, rng)
    sulcus = np.hypot(_fold_mm(points, rng), np.maximum(level - sulcus_depth, 0))
    return np.minimum(sulcus, np.hypot(points[2], np.maximum(level - _FISSURE_MM, 0)))


def _folium_mm(points: np.ndarray) -> np.ndarray:
    """About the distance, mm, to the nearest fold of the cerebellum, which is never far."""
    return 0.8 + 2.2 * np.abs(np.sin((points[0] + 0.7 * points[1]) * (np.pi / _FOLIUM_MM)))


def _level(points: np.ndarray, ellipsoid: Ellipsoid, power: float = 2.0) -> np.ndarray:
    """About the depth, mm, below the surface of an ellipsoid or its mirror image, negative outside."""
    middle, axes = ellipsoid
    total = np.abs((points[0] - middle[0]) / axes[0]) ** power
    total += np.abs((points[1] - middle[1]) / axes[1]) ** power
    total += np.abs((np.abs(points[2]) - middle[2]) / axes[2]) ** power
    return (1 - total ** (1 / power)) * float(np.mean(axes))


def _fold_mm(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About the distance, mm, to the nearest sulcus, were sulci endlessly deep: they run towards the middle."""
    from scipy.ndimage import map_coordinates

    reach, step = 90.0, 3.0
    count = int(2 * reach / step)
    noise = _smooth((count, count, count), np.full(3, step), _GYRUS_KNOT_MM, rng)
    steepness = np.sqrt(np.mean(np.diff(noise, axis=0) ** 2) * 3) / step
    radius = np.sqrt((points**2).sum(axis=0)) + 1e-3
    shell = points * (0.25 + 52.0 / radius)
    folds = map_coordinates(noise, (shell + reach) / step, order=1, mode="nearest", output=np.float32)
    return np.abs(folds) / np.float32(steepness)


def _tumour(
    points: np.ndarray,
    spacing: np.ndarray,
    middle: np.ndarray,
    radius: float,
    anatomy: _Anatomy,
    rng: np.random.Generator,
) -> np.ndarray:
    """Labels uint8 (S, H, W): shells of one irregular distance, oedema held back by grey matter and fluid."""
    shape = points.shape[1:]
    stretch = rng.uniform(0.75, 1.3, 3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] / (stretch / np.cbrt(stretch.prod()))
    away = _turned(turn, points - middle[:, None, None, None])
    distance = np.sqrt((away**2).sum(axis=0))
    coarse, middling, fine = (_smooth(shape, spacing, knot_mm, rng) for knot_mm in (14, 8.5, 5.5))

    room = anatomy.brain & (anatomy.csf < 0.5)
    core_radius = radius * rng.uniform(0.45, 0.75)
    core_level = core_radius * (1 + 0.16 * middling + 0.07 * fine) - distance
    held = 0.35 * radius * anatomy.grey
    whole_level = radius * (1 + 0.22 * coarse + 0.08 * fine) - distance - held
    core = room & (core_level > 0)
    whole = _largest(core | (room & (whole_level > 0)))
    core &= whole
    rim_mm = rng.uniform(0.15, 0.4) * core_radius
    enhancing = core & (core_level < rim_mm * (1 + 0.4 * fine)) & (rng.random() >= _PLAIN_SHARE)
    return np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0))).astype(np.uint8)


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    parts, number = label(mask)
    return mask if number < 2 else parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def _shares(
    anatomy: _Anatomy, mask: np.ndarray, spacing: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Share of each tissue in each voxel; infiltration and partial volume blur the tumour's edges."""
    from scipy.ndimage import gaussian_filter

    texture = 0.85 + 0.12 * _smooth(mask.shape, spacing, 7, rng)
    shares = {}
    for tissue, label in _LABELS.items():
        width = (2.0 if tissue == "oedema" else 0.8) / spacing
        shares[tissue] = gaussian_filter((mask == label).astype(np.float32), width) * texture.clip(0, 1)
    rest = 1 - sum(shares.values())
    shares["vessel"] = rest * anatomy.vessel
    rest = rest - shares["vessel"]
    shares["csf"], shares["grey"] = rest * anatomy.csf, rest * anatomy.grey
    shares["white"] = rest - shares["csf"] - shares["grey"]
    return shares


def _image(
    modality: str, shares: dict[str, np.ndarray], anatomy: _Anatomy, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """int16 (S, H, W): tissue signals with a bias field and Rician noise, 0 outside the brain."""
    shape = anatomy.brain.shape
    signal = np.zeros(shape, np.float32)
    for tissue, mean in zip(_TISSUES, _SIGNAL[modality], strict=True):
        signal += shares[tissue] * np.float32(mean * rng.normal(1, 0.04))
    if modality in ("flair", "t2"):
        caps = np.exp(-np.maximum(-anatomy.ventricle_mm, 0) / 2.5) * (1 - anatomy.csf)
        signal += np.float32(rng.uniform(0, 0.3)) * caps
    signal *= 1 + 0.02 * _smooth(shape, spacing, 3.6, rng)
    signal *= np.exp(rng.uniform(0.03, 0.1) * _smooth(shape, spacing, 48, rng))
    noise = rng.normal(0, rng.uniform(0.02, 0.045), (2, *shape)).astype(np.float32)
    signal = np.hypot(signal + noise[0], noise[1])
    gain = 900 * np.exp(rng.normal(0, 0.35))
    return np.where(anatomy.brain, np.clip(np.rint(signal * gain), 1, 32767), 0).astype(np.int16)


def _soft(x: np.ndarray) -> np.ndarray:
    """A step from 0 to 1 that is about four wide."""
    return 0.5 + 0.5 * np.tanh(x / 2)


def _smooth(shape: tuple[int, ...], spacing: np.ndarray, knot_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (S, H, W) float32 of mean 0 and deviation 1 that changes its sign about every third knot.

    Random numbers on a grid of knots, drawn out by cubic B-splines along one axis after the other.
    """
    splines = [_spline(n, mm / knot_mm) for n, mm in zip(shape, spacing.tolist(), strict=True)]
    noise = rng.standard_normal([int(first[-1]) + 4 for first, _ in splines]).astype(np.float32)
    for axis in (2, 1, 0):
        first, weights = splines[axis]
        sides = [-1 if axis == other else 1 for other in range(3)]
        noise = sum(np.take(noise, first + tap, axis) * weights[tap].reshape(sides) for tap in range(4))
    return noise * np.float32(_SPLINE_GAIN**3)


# One over the deviation that splines leave of white noise along an axis: 151 / 315 is the integral of their square.
_SPLINE_GAIN = (151 / 315) ** -0.5


def _spline(count: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """First of the four knots that bear on each of `count` places, `step` knots apart, and their weights (4, count)."""
    place = np.arange(count) * step
    first = np.floor(place).astype(np.intp)
    t = place - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return first, weights.astype(np.float32)
