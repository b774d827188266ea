"""What all trainers share: the plan of a training, and how its workers add numbers up."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segpipe.core.neighbours import slices_shown
from segpipe.core.regions import CONVENTIONS, LabelConvention
from segpipe.settings import TrainSettings

if TYPE_CHECKING:
    import tensorflow as tf

    from segpipe.storage.lock import Fence


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """What a worker must know of a scan before its slices come; arrays are (C,) float32.

    `(stored - mean) * inverse_std` is a stored voxel normalised over the brain, slope and intercept included.
    `groups` are the row groups that hold its slices, indices into `TrainPlan.groups`.
    """

    scan_id: str
    subject: str
    split: str
    shape: tuple[int, int, int]
    brain_box: tuple[int, ...]
    mean: np.ndarray
    inverse_std: np.ndarray
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class SliceIndex:
    """Where the slices of a split stand: one entry per slice, arrays (N,).

    `scan` and `group` point into `TrainPlan.scans` and `TrainPlan.groups`, `row` is the row in its row group,
    `foreground` says whether the slice has a label. In 3D an entry is a patch, see `segpipe.trainers.patches`: `group`
    is the scan as well, and `row` the number of the patch in it.
    """

    scan: np.ndarray
    group: np.ndarray
    row: np.ndarray
    foreground: np.ndarray

    def __len__(self) -> int:
        return len(self.scan)


@dataclass(frozen=True, eq=False)
class TrainPlan:
    """Everything that a worker needs, small and picklable: it travels to all of them."""

    settings: TrainSettings
    modalities: tuple[str, ...]
    orientation: str
    convention_name: str
    crop: tuple[int, ...]
    """What the network sees: rows and columns of a slice; in 3D slices, rows and columns of a patch."""
    scans: tuple[ScanPlan, ...]
    groups: tuple[tuple[str, int], ...]
    """Path of a part file and number of a row group in it."""
    slices: SliceIndex
    """Of the training split."""
    steps: int
    split_rule: str = ""
    space: str = "as ingested"
    """What the scans were prepared to be."""
    left_out: tuple[str, ...] = ()
    """scan_id of scans that lack a modality which most of the cohort have."""
    initial_epoch: int = 0
    """Epochs that are done; their checkpoint is what the training goes on from."""
    initial_step: int = 0
    """Steps of the next epoch that are done as well."""
    initial_loss: float = 0.0
    """Mean loss of these steps."""
    initial_seconds: float = 0.0
    """How long these steps took."""
    finished: bool = False
    history: tuple[dict[str, Any], ...] = field(default=())
    """Rows of history.csv up to `initial_epoch`."""
    fence: "Fence | None" = None
    """The right to write into the model directory, asked for before each checkpoint."""

    @property
    def epochs(self) -> int:
        """How many epochs the training has, whether asked for or fitted to the cohort."""
        assert self.settings.epochs is not None  # whoever makes a plan decides it
        return self.settings.epochs

    @property
    def coarse_epochs(self) -> int:
        """How many epochs, the first ones, learn from slices of half the size; never all of them."""
        if self.settings.dimensions == 3:
            return 0
        return min(round(self.settings.coarse_share * self.epochs), self.epochs - 1)

    @property
    def batch_size(self) -> int:
        """Slices or patches per step over all workers together, whether asked for or the default."""
        assert self.settings.batch_size is not None  # whoever makes a plan decides it
        return self.settings.batch_size

    @property
    def convention(self) -> LabelConvention:
        """What the labels mean."""
        return CONVENTIONS[self.convention_name]

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that are trained, outermost first."""
        return self.convention.region_names

    def check_fence(self) -> None:
        """Raise WarehouseBusy where another job has taken the model directory over."""
        if self.fence is not None:
            self.fence.check()

    @property
    def channels(self) -> int:
        """Of the network's input: modalities, of each slice that it is shown."""
        return len(self.modalities) * slices_shown(self.settings.neighbours)

    def of_split(self, split: str) -> list[int]:
        """The scans of a split, as indices."""
        return [place for place, scan in enumerate(self.scans) if scan.split == split]


class WorkerGroup(Protocol):
    """The workers of one training, seen from one of them."""

    rank: int
    size: int

    def total(self, tensor: "tf.Tensor") -> "tf.Tensor":
        """The sum of a tensor over all workers, inside a training step; its gradient reaches them all.

        What is made of the sum must be the same on every worker, because then the gradient that comes back is the same.
        """
        ...

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, between steps; every worker must call it, and gets the same."""
        ...

    def optimizer(self, **options: Any) -> "tf.keras.optimizers.Optimizer":
        """An Adam whose gradients are those of the global batch."""
        ...

    def close(self) -> None:
        """Leave the others, after the last sum."""
        ...


class Alone:
    """The group of a single worker."""

    rank = 0
    size = 1

    def total(self, tensor: "tf.Tensor") -> "tf.Tensor":
        """The tensor itself."""
        return tensor

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """The array itself."""
        return numbers

    def optimizer(self, **options: Any) -> "tf.keras.optimizers.Optimizer":
        """Adam."""
        import tensorflow as tf

        return tf.keras.optimizers.Adam(**options)

    def close(self) -> None:
        """Nobody is left."""
