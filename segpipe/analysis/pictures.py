"""The pictures of the documentation: `python -m segpipe.analysis.pictures`, after `make demo`.

They are drawn from generated scans only, so that no patient gets into the repository; each picture says so.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import segpipe
from segpipe.analysis import Warehouse, plots, training
from segpipe.analysis.scan import Scan
from segpipe.errors import SegpipeError, TableError

_GENERATED = "Synthetic_"
_COLOURS = 128


def draw(warehouse: Warehouse, model: str, folder: Path) -> list[Path]:
    """Draw slices and a still of the worst test scan, and the learning curves, as PNG files below `folder`.

    Raises TableError if a subject is not a generated one, or none was segmented.
    """
    real = [one for one in warehouse.scans.pandas()["subject"] if not one.startswith(_GENERATED)]
    if real:
        raise TableError(
            f"{warehouse.store.url} holds scans that segpipe did not generate ({real[0]}, …)",
            "name the warehouse of `make demo`",
        )
    scan = _worst(warehouse)
    caption = f"Generated scan, no patient: {scan.subject} ({scan.split}). Truth blue, prediction orange and dashed."
    made = {
        "slices.png": (scan.plot(), caption),
        "still.png": (scan.picture(), caption),
        "curves.png": (plots.curves(training.history_of(model)), "Trained on generated scans, no patients."),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(figure, text, folder / name) for name, (figure, text) in made.items()]


def _worst(warehouse: Warehouse) -> Scan:
    rows = warehouse.segmentations.where(split="test").pandas().dropna(subset=["dice"])
    if rows.empty:
        raise TableError(f"{warehouse.store.url} has no test scan with a Dice", "run `make demo`")
    outer = rows[rows["region"] == rows["region"].iloc[0]]
    return warehouse.scan(outer.sort_values("dice")["scan_id"].iloc[0])


def _save(figure: Figure, caption: str, path: Path) -> Path:
    """Write a figure with its caption, in few colours: the repository holds small files."""
    from PIL import Image

    figure.suptitle(caption, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    Image.fromarray(pixels).quantize(_COLOURS, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m segpipe.analysis.pictures",
        description="Draw the documentation's pictures from generated scans.",
    )
    parser.add_argument("--warehouse", default="demo/tables", help="folder of the tables (default: %(default)s)")
    parser.add_argument("--model", default="demo/model", help="model directory (default: %(default)s)")
    folder = Path("docs/pictures")
    parser.add_argument("folder", nargs="?", type=Path, default=folder, help="where they go (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        made = draw(segpipe.open_warehouse(options.warehouse), options.model, options.folder)
    except SegpipeError as error:
        print(f"segpipe: {error}", file=sys.stderr)
        return error.exit_code
    for path in made:
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
