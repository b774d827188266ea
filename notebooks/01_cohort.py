# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is in the archive
#
# Modalities, geometry, intensities, labels and splits of a cohort, and what was rejected. The warehouse is that of
# `SEGPIPE_WAREHOUSE`, or what `make demo` left behind.

# %%
import os
import sys
from pathlib import Path

import pandas as pd

ROOT = Path.cwd() if (Path.cwd() / "segpipe").is_dir() else Path.cwd().parent
sys.path.insert(0, str(ROOT))

import segpipe

warehouse = segpipe.open_warehouse(os.environ.get("SEGPIPE_WAREHOUSE", str(ROOT / "demo" / "tables")))
warehouse

# %%
cohort = os.environ.get("SEGPIPE_COHORT", warehouse.cohorts[0])
scans = warehouse.scans.where(cohort=cohort)
scans

# %% [markdown]
# ## Splits
#
# A subject is in one split, whatever its number of scans: the split is a salted hash of the subject, so that new
# subjects never move old ones. A table that breaks this is refused when it is read.

# %%
frame = scans.pandas()
frame.groupby("split").agg(
    subjects=("subject", "nunique"),
    scans=("scan_id", "count"),
    slices=("shape", lambda shapes: sum(shape[0] for shape in shapes)),
    with_labels=("label_convention", "count"),
)

# %% [markdown]
# ## Modalities and geometry
#
# One row per kind of scan: which modalities, on which grid.

# %%
kinds = frame.assign(
    modalities=frame["modalities"].map(", ".join),
    shape=frame["shape"].map(lambda shape: " × ".join(map(str, shape))),
    spacing_mm=frame["spacing_mm"].map(lambda steps: " × ".join(f"{step:.2f}" for step in steps)),
)
kinds.value_counts(["modalities", "shape", "spacing_mm", "orientation", "layout"], dropna=False).rename(
    "scans"
).to_frame()

# %% [markdown]
# ## Intensities
#
# Magnetic resonance has no units: the same tissue has other values on another scanner. So every scan is normalised by
# its own mean and deviation over the brain, and these are what differs here.

# %%
intensity = frame[["scan_id", "split", "intensity"]].explode("intensity", ignore_index=True)
intensity = intensity.drop(columns="intensity").join(pd.json_normalize(intensity["intensity"]))
intensity.groupby("modality")[["mean", "std", "p01", "median", "p99", "max"]].describe().T.unstack().round(1)

# %%
axes = intensity.plot.scatter(x="mean", y="std", c=intensity["modality"].astype("category").cat.codes, colormap="tab10")
_ = axes.set(title="Brain intensity per scan and modality", xlabel="mean", ylabel="standard deviation")

# %% [markdown]
# ## Labels
#
# Millilitres of each label; a voxel's volume comes from the scan's own affine.

# %%
labels = frame.dropna(subset=["label_counts"])[["scan_id", "split", "spacing_mm", "label_counts"]]
labels = labels.explode("label_counts", ignore_index=True).dropna(subset=["label_counts"])
labels["voxel_ml"] = labels["spacing_mm"].map(lambda steps: float(steps[0] * steps[1] * steps[2]) / 1000)
labels = labels.drop(columns=["label_counts", "spacing_mm"]).join(pd.json_normalize(labels["label_counts"]))
labels["volume_ml"] = labels["voxels"] * labels["voxel_ml"]
labels.groupby(["label", "split"])["volume_ml"].describe().round(1)

# %% [markdown]
# ## Quarantine
#
# What could not be used, with a typed reason; everything else went on.

# %%
quarantine = warehouse.quarantine.where(cohort=cohort).pandas()
quarantine.groupby("reason").agg(inputs=("fingerprint", "nunique"), example=("message", "first"))

# %% [markdown]
# ## Series of a DICOM archive
#
# What every series is, by its header and the known words of its description, and what became of it. No table holds the
# texts: equal ones have equal hashes. Name what is a conflict or unknown in a file for `--series-map`. Empty for other
# archives.

# %%
series = warehouse.series.where(cohort=cohort).pandas()
series.assign(what=series["role"].where(series["decision"] == "selected", series["reason"])).value_counts(
    ["decision", "what"], dropna=False
).rename("series").to_frame()

# %%
kinds = ["vendor", "role", "plane", "dimensions"]
used = series[series["decision"] == "selected"]
used.groupby(kinds, dropna=False).agg(
    series=("series_id", "count"), step_mm=("step_mm", "median"), slices=("slices", "median")
)

# %%
unclear = series[series["decision"].isin(["conflict", "unknown"])]
unclear.groupby("text_hash").agg(
    series=("series_id", "count"), why=("reason", "first"), words=("words", "first")
).sort_values("series", ascending=False).head(20)

# %% [markdown]
# ## One scan
#
# The slices that show most of the lesion. `04_viewer` turns scans in 3D.

# %%
scan = warehouse.scan(frame.sort_values("brain_voxels")["scan_id"].iloc[-1])
scan

# %%
scan.plot(model=next(iter(scan.models()), None))
