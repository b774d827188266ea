"""How networks that were trained elsewhere want their intensities: rules by name, each a pure function of a volume.

A rule is `Scaling`; it does what MONAI's and nnU-Net's transforms of the same kind do, so that their networks see what
they have learnt from. Networks of our own are normalised by `segpipe.core.intensity`.
"""

from dataclasses import dataclass, fields

import numpy as np

METHODS = ("zscore", "percentiles", "range", "fixed", "none")
"""Mean and deviation of the scan; percentiles to a range; a stated range to another; stated mean and deviation."""

VOXELS = ("all", "non-zero", "any-non-zero", "brain")
"""Whose statistics count: all voxels, those of the channel that are not 0, those where some channel is not 0 (holes
filled, as in nnU-Net), or those of the brain, whose mean and deviation stand in the tables."""

OUTSIDE = ("scaled", "zero")
"""What becomes of the voxels that do not count: scaled like the others, or 0."""

_ENDS = ("low", "high", "to_low", "to_high", "clip")
_READ = {"percentiles": _ENDS, "range": _ENDS, "fixed": ("low", "high", "clip", "mean", "std")}  # by which method
_LEAST_DEVIATION = 1e-8


@dataclass(frozen=True)
class Scaling:
    """How one channel is scaled.

    `low` and `high` are percentiles (0 to 100) of `percentiles`, values of `range`, and what `fixed` clips to before it
    subtracts `mean` and divides by `std`. `to_low` and `to_high` are what `low` and `high` become; with `clip` nothing
    lies beyond.
    """

    method: str = "zscore"
    over: str = "all"
    outside: str = "scaled"
    low: float | None = None
    high: float | None = None
    to_low: float = 0.0
    to_high: float = 1.0
    clip: bool = False
    mean: float = 0.0
    std: float = 1.0

    def faults(self) -> list[str]:
        """What is wrong with it, a sentence each.

        >>> Scaling("range", low=1.0).faults()
        ['method `range` needs `low` and `high`']
        """
        found = [
            f"`{name}` is {value!r} but must be one of {', '.join(choices)}"
            for name, value, choices in (
                ("method", self.method, METHODS),
                ("over", self.over, VOXELS),
                ("outside", self.outside, OUTSIDE),
            )
            if value not in choices
        ]
        plain, read = Scaling(), ("method", "over", "outside", *_READ.get(self.method, ()))
        unread = [one.name for one in fields(self) if getattr(self, one.name) != getattr(plain, one.name)]
        if unread := [name for name in unread if name not in read and self.method in METHODS]:
            found.append(f"method `{self.method}` does nothing with `{'`, `'.join(unread)}`")
        if self.method in ("range", "percentiles") and (self.low is None or self.high is None):
            found.append(f"method `{self.method}` needs `low` and `high`")
        elif self.low is not None and self.high is not None and not self.low < self.high:
            found.append(f"`low` {self.low:g} is not below `high` {self.high:g}")
        elif self.method == "percentiles" and not (0 <= self.low <= 100 and 0 <= self.high <= 100):  # type: ignore
            found.append(f"percentiles lie in 0 to 100, not {self.low:g} and {self.high:g}")
        elif self.method == "percentiles" and self.high <= 1:  # type: ignore
            found.append(f"percentiles go up to 100; {self.low:g} and {self.high:g} are shares")
        if self.to_low == self.to_high:
            found.append(f"`to_low` and `to_high` are both {self.to_low:g}, so that nothing is left of the image")
        if self.method == "fixed" and not self.std > 0:
            found.append(f"`std` is {self.std:g} but must be above 0")
        if self.over == "brain" and self.method not in ("zscore", "none"):
            found.append(f"over `brain` only method `zscore` is known, not `{self.method}`")
        if self.over == "brain" and self.outside == "zero":
            found.append("over `brain` voxels outside are scaled as well: `outside` cannot be `zero`")
        return found


def scale_channels(
    volume: np.ndarray, scalings: "tuple[Scaling, ...]", brain: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """The channels of `volume` (C, …) scaled by one rule each: float32 of the same shape, finite everywhere.

    `brain` has mean and deviation of the brain per channel. A deviation of 0 leaves a channel only shifted, an empty
    range maps to `to_low`. Voxels that are not finite count as 0.

    >>> rule = Scaling("zscore", "non-zero", "zero")
    >>> scale_channels(np.array([[[0.0, 1.0, 3.0]]]), (rule,), ((0.0, 1.0),)).tolist()
    [[[0.0, -1.0, 1.0]]]
    """
    values = np.nan_to_num(np.asarray(volume, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    anywhere = _filled((values != 0).any(axis=0)) if any(s.over == "any-non-zero" for s in scalings) else None
    return np.stack(
        [
            _scale(channel, scaling, anywhere, *known)
            for channel, scaling, known in zip(values, scalings, brain, strict=True)
        ]
    )


def _scale(channel: np.ndarray, rule: Scaling, anywhere: np.ndarray | None, mean: float, std: float) -> np.ndarray:
    if rule.method == "none":
        return channel
    inside = {"non-zero": channel != 0, "any-non-zero": anywhere}.get(rule.over)
    if inside is not None and not inside.any():
        return np.zeros_like(channel)
    scaled = _scaled(channel, rule, channel if inside is None else channel[inside], mean, std)
    if inside is not None and rule.outside == "zero":
        scaled = np.where(inside, scaled, np.float32(0))
    return scaled.astype(np.float32, copy=False)


def _scaled(channel: np.ndarray, rule: Scaling, counted: np.ndarray, mean: float, std: float) -> np.ndarray:
    if rule.method == "zscore":
        if rule.over != "brain":
            mean, std = float(counted.mean(dtype=np.float64)), float(counted.std(dtype=np.float64))
        elif not np.isfinite(mean):
            mean = 0.0
        return (channel - np.float32(mean)) / np.float32(std if std > _LEAST_DEVIATION else 1.0)
    if rule.method == "fixed":
        clipped = channel if rule.low is None and rule.high is None else np.clip(channel, rule.low, rule.high)
        return (clipped - np.float32(rule.mean)) / np.float32(rule.std)
    assert rule.low is not None  # `faults` has said so
    assert rule.high is not None
    low, high = rule.low, rule.high
    if rule.method == "percentiles":
        low, high = np.percentile(counted, (low, high)).tolist()
    if high <= low:
        return np.full_like(channel, rule.to_low)
    moved = (channel - np.float32(low)) * np.float32((rule.to_high - rule.to_low) / (high - low)) + np.float32(
        rule.to_low
    )
    return np.clip(moved, min(rule.to_low, rule.to_high), max(rule.to_low, rule.to_high)) if rule.clip else moved


def _filled(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    return np.asarray(binary_fill_holes(mask), bool)
