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
# # A scan in 3D
#
# With truth in blue and prediction in orange. In Jupyter and VS Code the viewer is NiiVue: drag to turn, scroll through
# slices, right-drag for contrast. All of its data comes from the kernel, nothing from the network. Where no widget can
# run the same cell gives a still picture.

# %%
import os
import sys
from pathlib import Path

ROOT = Path.cwd() if (Path.cwd() / "segpipe").is_dir() else Path.cwd().parent
sys.path.insert(0, str(ROOT))

import segpipe

warehouse = segpipe.open_warehouse(os.environ.get("SEGPIPE_WAREHOUSE", str(ROOT / "demo" / "tables")))
cohort = os.environ.get("SEGPIPE_COHORT", warehouse.cohorts[0])

# %% [markdown]
# The worst test scan; put any scan_id or subject in its place.

# %%
results = warehouse.segmentations.where(cohort=cohort).pandas()
worst = results.sort_values(["split", "dice"]).iloc[0]["scan_id"]
scan = warehouse.scan(os.environ.get("SEGPIPE_SCAN", worst))
model = warehouse.models[0]
scan

# %%
scan.view(model=model)

# %% [markdown]
# ## A still picture
#
# For a page that is printed, mailed or shown where nothing runs.

# %%
scan.picture(model=model)

# %% [markdown]
# ## The arrays behind it
#
# All arrays of a scan are indexed (slice, row, column); `affine` maps such an index to millimetres. As NIfTI the
# volumes lie over the source files, ready for any other viewer.

# %%
prediction = scan.prediction(model)
prediction.shape, prediction.dtype, scan.affine

# %%
image = scan.nifti("prediction", model)
image.header.get_zooms(), image.shape
