"""One scan: its volumes, labels and predictions as arrays or NIfTI images, with the affine that they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.analysis import html
from segpipe.core.orientation import reorient, reorient_affine
from segpipe.core.regions import CONVENTIONS, LabelConvention
from segpipe.core.volume import scale
from segpipe.errors import NotFound, UsageError
from segpipe.extras import named_extra, names_extra

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from nibabel.nifti1 import Nifti1Image

    from segpipe.analysis.warehouse import Warehouse

MASK, PREDICTION = "mask", "prediction"


@dataclass(frozen=True, eq=False)
class Scan:
    """A row of `scans` with its arrays: all (slice, row, column), read when first asked for and kept.

    What the row holds is a property; what is read or drawn is a method.
    `affine` maps (slice, row, column, 1) to RAS+ mm and belongs to every array of the scan.
    """

    warehouse: Warehouse
    row: dict[str, Any]

    @property
    def scan_id(self) -> str:
        """cohort:subject:session."""
        return str(self.row["scan_id"])

    @property
    def subject(self) -> str:
        """The patient."""
        return str(self.row["subject"])

    @property
    def split(self) -> str:
        """train, validation or test."""
        return str(self.row["split"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """What can be asked of `image`, in the order of the channels of `images`."""
        return tuple(self.row["modalities"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.row["shape"]
        return slices, rows, columns

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of voxels along slice, row and column, mm."""
        along_slice, along_row, along_column = self.row["spacing_mm"]
        return along_slice, along_row, along_column

    @property
    def orientation(self) -> str:
        """Where slice, row and column grow to, such as SPL."""
        return str(self.row["orientation"])

    @property
    def affine(self) -> np.ndarray:
        """(slice, row, column, 1) to RAS+ mm, (4, 4) float64."""
        return np.reshape(self.row["affine"], (4, 4)).astype(np.float64)

    @property
    def convention(self) -> LabelConvention | None:
        """What the labels of `mask` mean; None without a mask."""
        return CONVENTIONS.get(self.row["label_convention"])

    def models(self) -> list[str]:
        """The ids of the models that segmented this scan, sorted."""
        found = self.warehouse.segmentations.where(scan_id=self.scan_id).select("model_id").arrow()
        return sorted(set(found["model_id"].to_pylist()))

    def image(self, modality: str) -> np.ndarray:
        """One modality in scaled values, float32 (S, H, W), by its name in any case.

        Raises NotFound for a modality that the scan lacks.
        """
        name = next((name for name in self.modalities if name.lower() == modality.lower()), None)
        if name is None:
            known = ", ".join(self.modalities)
            raise NotFound(f"Scan {self.scan_id} has no modality {modality}", f"take one of {known}")
        file = next(file for file in self.row["files"] if file["role"] == name)
        return scale(self._planes[name], file["slope"], file["inter"])

    def images(self) -> np.ndarray:
        """All modalities in scaled values, float32 (S, H, W, C), in the order of `modalities`."""
        return np.stack([self.image(modality) for modality in self.modalities], axis=-1)

    def mask(self) -> np.ndarray | None:
        """The true label map, uint8 (S, H, W), in `convention`; None if the scan has no mask."""
        return self._planes[MASK].astype(np.uint8) if MASK in self._planes else None

    def prediction(self, model: str | None = None) -> np.ndarray:
        """The label map that a model predicted, uint8 (S, H, W); the only model when not named.

        Raises NotFound if the model has not segmented the scan, UsageError where several have and none is named.
        """
        return self._predictions(self._model(model))[0]

    def prediction_convention(self, model: str | None = None) -> LabelConvention | None:
        """What the labels of `prediction` mean; raises as `prediction` does."""
        return self._predictions(self._model(model))[1]

    @property
    def is_prepared(self) -> bool:
        """Whether its arrays were registered and resampled by `ingest --prepare`: they lie on no source file's grid."""
        return bool(self.row["preparation"]) and self.row["preparation"]["how"] == "prepared"

    def nifti(self, what: str, model: str | None = None, native: str | None = None) -> Nifti1Image:
        """A modality, `mask` or `prediction` as a NIfTI image, turned as the source file was: it lies over that file.

        Of a prepared scan it lies in the space of the cohort; with `native`, a modality's name, labels lie on the grid
        of that modality's source file, their volumes kept. Raises NotFound if the scan has no such volume.
        """
        with named_extra():
            import nibabel as nib

        if native is not None and self.is_prepared:
            labels, affine = self._on_source_grid(what, model, native)
            image = nib.Nifti1Image(labels, affine)
            image.header.set_xyzt_units("mm")
            return image

        if what == MASK:
            array = self.mask()
            if array is None:
                raise NotFound(f"Scan {self.scan_id} has no mask", "ask for a modality or a prediction")
        else:
            array = self.prediction(model) if what == PREDICTION else self.image(what)
        target = self._source_orientation
        affine = reorient_affine(self.affine, self.shape, self.orientation, target)
        image = nib.Nifti1Image(np.ascontiguousarray(reorient(array, self.orientation, target)), affine)
        image.header.set_xyzt_units("mm")
        return image

    def results(self, model: str | None = None) -> pd.DataFrame:
        """The rows of `segmentations` of this scan, of all models or one."""
        view = self.warehouse.segmentations.where(scan_id=self.scan_id)
        return (view.where(model_id=model) if model else view).to_pandas()

    @names_extra
    def plot(self, modality: str | None = None, model: str | None = None, slices: int = 5) -> Figure:
        """A row of slices that show most, with the outlines of truth and prediction where there are any."""
        from segpipe.analysis.plots import slices_of

        return slices_of(self, modality, model, slices)

    @names_extra
    def picture(self, modality: str | None = None, model: str | None = None) -> Figure:
        """Three planes through the lesion and its surface in that of the brain, with truth and prediction."""
        from segpipe.analysis.plots import picture_of

        return picture_of(self, modality, model)

    @names_extra
    def view(self, modality: str | None = None, model: str | None = None, native: str | None = None) -> Any:
        """The scan in 3D with truth and prediction: a widget to turn and slice, or a picture where none can run.

        With `native`, the path of the modality's source file, a picture of the prepared image beside that of the file,
        through one place, with the outline of the prediction, or else of the brain, on each. Tables of prepared scans
        hold no voxel of their sources.
        """
        if native is not None:
            from segpipe.analysis.plots import native_of

            return native_of(self, native, modality, model)
        from segpipe.analysis.viewer import view

        return view(self, modality, model)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"<scan {self.scan_id}: {', '.join(self.modalities)}, {size}, {self.split}>"

    def _repr_html_(self) -> str:
        items = {
            "split": self.split,
            "modalities": ", ".join(self.modalities),
            "shape": " × ".join(map(str, self.shape)),
            "spacing": " × ".join(f"{step:g}" for step in self.spacing_mm) + " mm",
            "labels": self.row["label_convention"] or "none",
        }
        return html.facts(f"Scan {self.scan_id}", items | {"measures": ".results()", "models": ".models()"})

    @cached_property
    def _planes(self) -> dict[str, np.ndarray]:
        from segpipe.warehouse.scan_slices import read_planes

        return read_planes(self.warehouse.store, self.row)

    @cached_property
    def _kept(self) -> dict[str, tuple[np.ndarray, LabelConvention | None]]:
        return {}

    def _on_source_grid(self, what: str, model: str | None, native: str) -> tuple[np.ndarray, np.ndarray]:
        from segpipe.prepare.native import resampled_to_source

        role = next((name for name in self.modalities if name.lower() == native.lower()), None)
        labels = self.mask() if what == MASK else self.prediction(model) if what == PREDICTION else None
        if role is None or labels is None:
            raise NotFound(
                f"Scan {self.scan_id} has no {what} on the grid of {native}",
                f"ask for {MASK} or {PREDICTION} on one of {', '.join(self.modalities)}; images are in the source file",
            )
        return resampled_to_source(labels, self.row, role)

    @property
    def _source_orientation(self) -> str:
        files = [file for file in self.row["files"] if file["role"] in (self.row["resampled_to"], self.modalities[0])]
        chosen = next((file for file in files if file["role"] == self.row["resampled_to"]), files[0])
        return str(chosen["orientation"])

    def _model(self, model: str | None) -> str:
        known = self.models()
        if model is None and len(known) > 1:
            raise UsageError(
                f"Scan {self.scan_id} was segmented by {len(known)} models", f"name one: {', '.join(known)}"
            )
        if not known or (model is not None and model not in known):
            remedy = f"take one of {', '.join(known)}" if known else "run `segment` first"
            who = f"Model {model} has not" if model else "No model has"
            raise NotFound(f"{who} segmented scan {self.scan_id}", remedy)
        return model or known[0]

    def _predictions(self, model: str) -> tuple[np.ndarray, LabelConvention | None]:
        from segpipe.warehouse.predicted import PLANE_COLUMNS, assembled

        if model not in self._kept:
            view = self.warehouse.predictions.where(scan_id=self.scan_id, model_id=model)
            rows = view.select(*PLANE_COLUMNS).to_arrow()
            labels, name = assembled([rows], self.shape, f"{self.scan_id} of model {model}")
            stated = CONVENTIONS.get(name)
            self._kept[model] = labels, stated or self.convention
        return self._kept[model]
