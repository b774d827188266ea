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
# # How a training went
#
# Curves, Dice per patient, and the slices that went worst. The model directory is that of `SEGPIPE_MODEL`, or the
# demo's.

# %%
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path.cwd() if (Path.cwd() / "segpipe").is_dir() else Path.cwd().parent
sys.path.insert(0, str(ROOT))

import segpipe
from segpipe.analysis import plots, training

warehouse = segpipe.open_warehouse(os.environ.get("SEGPIPE_WAREHOUSE", str(ROOT / "demo" / "tables")))
cohort = os.environ.get("SEGPIPE_COHORT", warehouse.cohorts[0])
folder = os.environ.get("SEGPIPE_MODEL", str(ROOT / "demo" / "model"))
history, model = training.history_of(folder), training.model_id_of(folder)

# %% [markdown]
# ## Curves
#
# The loss of every epoch; Dice of those that were validated. Dice is one number per patient, in 3D, averaged over
# patients: means over slices flatter, for most slices of a scan hold no tumour.

# %%
plots.curves(history)

# %%
history.describe().loc[["min", "max"]].round(3)

# %% [markdown]
# ## Dice per patient
#
# Patients of the validation and the test split were not trained on. Values of training patients are shown to see how
# far the two lie apart.

# %%
results = warehouse.segmentations.where(cohort=cohort, model_id=model).pandas()
outer = results["region"].iloc[0]
judged = results[results["region"] == outer].sort_values("dice")
judged.groupby("split")["dice"].describe().round(3)

# %%
unseen = judged[judged["split"] != "train"].head(10)
unseen[["subject", "session", "split", "dice", "hd95_mm", "volume_ml", "truth_volume_ml", "qc_flags"]].round(3)

# %% [markdown]
# ## Worst slices
#
# Of the worst patients, the slices with the most wrong pixels.


# %%
def wrong_pixels(scan: segpipe.analysis.Scan) -> pd.DataFrame:
    """Wrong pixels per slice of a scan's whole tumour."""
    truth, predicted = plots.outer_regions(scan, model)
    missed, invented = truth & ~predicted, predicted & ~truth
    counts = {"missed": missed.sum(axis=(1, 2)), "invented": invented.sum(axis=(1, 2))}
    return pd.DataFrame({"scan_id": scan.scan_id, "slice": np.arange(scan.shape[0]), **counts})


worst = [warehouse.scan(scan_id) for scan_id in judged["scan_id"].head(3)]
slices = pd.concat(wrong_pixels(scan) for scan in worst)
slices.assign(wrong=slices["missed"] + slices["invented"]).sort_values("wrong", ascending=False).head(10)

# %%
worst[0].plot(model=model)

# %% [markdown]
# ## What it took

# %%
runs = warehouse.runs.where(cohort=cohort, job="train").pandas()
[row["parameters"] for _, row in runs.iterrows()][-1:]

# %%
pd.DataFrame(runs["stage_seconds"].tolist(), index=runs["started"]).round(1)
