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
# # What came out
#
# Volumes per region, change between sessions, quality flags, two models side by side; with pandas, and as SQL in DuckDB
# and in Spark.

# %%
import os
import sys
from pathlib import Path

ROOT = Path.cwd() if (Path.cwd() / "segpipe").is_dir() else Path.cwd().parent
sys.path.insert(0, str(ROOT))

import segpipe

warehouse = segpipe.open_warehouse(os.environ.get("SEGPIPE_WAREHOUSE", str(ROOT / "demo" / "tables")))
cohort = os.environ.get("SEGPIPE_COHORT", warehouse.cohorts[0])
warehouse.segmentations.where(cohort=cohort)

# %% [markdown]
# ## Volumes per region

# %%
results = warehouse.segmentations.where(cohort=cohort).pandas()
results.groupby(["model_id", "region"])[
    ["volume_ml", "truth_volume_ml", "lesions", "longest_diameter_mm"]
].mean().round(1)

# %%
known = results.dropna(subset=["truth_volume_ml"])
axes = known.plot.scatter(x="truth_volume_ml", y="volume_ml", alpha=0.6, title="Volumes, ml")
limit = float(known[["truth_volume_ml", "volume_ml"]].max().max()) if len(known) else 1.0
_ = axes.plot([0, limit], [0, limit], color="grey", linestyle="--")

# %% [markdown]
# ## Change between sessions
#
# Who was scanned more than once: how much each region grew from one session to the next, ml.

# %%
series = results.sort_values("session").groupby(["model_id", "subject", "region"])
change = results.assign(change_ml=series["volume_ml"].diff()).dropna(subset=["change_ml"])
change[["model_id", "subject", "region", "session", "volume_ml", "change_ml"]]

# %% [markdown]
# ## Quality flags
#
# What a person should look at before trusting the numbers.

# %%
flagged = results[results["qc_flags"].map(len) > 0]
flagged[["scan_id", "model_id", "region", "volume_ml", "qc_flags"]]

# %% [markdown]
# ## Two models
#
# Paired by patient: only scans that both have segmented count. With one model so far the answer is empty; train another
# one on the same cohort and segment with it.

# %%
query = """
    select a.split, a.region, a.model_id as one, b.model_id as other,
           count(*) as scans, avg(a.dice) as dice_one, avg(b.dice) as dice_other, avg(b.dice - a.dice) as gain
    from segmentations a
    join segmentations b on a.scan_id = b.scan_id and a.region = b.region and a.model_id < b.model_id
    group by a.split, a.region, a.model_id, b.model_id
    order by a.split, a.region
"""
warehouse.sql(query).df().round(3)

# %% [markdown]
# ## The same in Spark
#
# Spark reads the same files; on a cluster this is the way for cohorts that fit no single machine. `spark-sql` finds the
# tables by name after `./spark-submit.sh register`.

# %%
warehouse.spark_sql(query).toPandas().round(3)

# %%
frame = warehouse.segmentations.where(cohort=cohort).spark()
frame.groupBy("region").agg({"volume_ml": "avg", "dice": "min"}).orderBy("region").show()

# %%
warehouse.spark.stop()
