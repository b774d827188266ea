"""The picture of a result in the README: `python -m segpipe.report.picture`, after `make demo`.

It is drawn from generated scans only, so that no patient gets into the repository; the picture says so.
"""

import argparse
import base64
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import SegpipeError, TableError
from segpipe.report import results
from segpipe.report.figures import strip
from segpipe.report.overlays import Panel
from segpipe.report.results import Row, Source
from segpipe.warehouse.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH, PREDICTED, PAPER, INK = "#5ec4ff", "#ffa600", "#0d1117", "#e6eaf0"
_GENERATED = "Synthetic_"
_WIDTH_INCHES = 11.0
_GAP_INCHES = 0.08
_TEXT_INCHES = 0.32
_DOTS_PER_INCH = 110
_GREYS = 56


def draw(warehouse: str, cohort: str, model: str, output: Path, slices: int = 6) -> Path:
    """Draw slices of the best, the middle and the worst test scan, one row each, as a PNG.

    Raises TableError if a subject is not a generated one.
    """
    described = results.find_model(model)
    tables = Store(warehouse)
    scans, rows = results.find_results(tables, cohort, described)
    real = sorted({scan["subject"] for scan in scans.values() if not scan["subject"].startswith(_GENERATED)})
    if real:
        raise TableError(
            f"Cohort {cohort} holds scans that segpipe did not generate ({real[0]}, …)",
            "name the cohort of `make demo`",
        )
    convention = results.convention_of(described, scans.values())
    outer = convention.region_names[0]
    test = results.worst_first([row for row in rows if row["split"] == "test" and row["region"] == outer])
    chosen = [test[place] for place in sorted({0, len(test) // 2, len(test) - 1}, reverse=True)]
    strips = [strip(Source(tables), scans[row["scan_id"]], described, convention, rows, slices) for row in chosen]
    return _paint(strips, outer, output)


def _paint(strips: Sequence[Row], region: str, output: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = max(len(one["panels"]) for one in strips)
    side = (_WIDTH_INCHES - _GAP_INCHES * (columns + 1)) / columns
    heights = [side * max(panel.height_mm / panel.width_mm for panel in one["panels"]) for one in strips]
    total = sum(heights) + _TEXT_INCHES * (len(strips) + 1)
    figure = Figure(figsize=(_WIDTH_INCHES, total), facecolor=PAPER)
    top = total
    for one, height in zip(strips, heights, strict=True):
        _write(figure, _GAP_INCHES, top - 0.5 * _TEXT_INCHES, _caption(one, region))
        top -= _TEXT_INCHES + height
        for place, panel in enumerate(one["panels"]):
            left = _GAP_INCHES + place * (side + _GAP_INCHES)
            box = (left / _WIDTH_INCHES, top / total, side / _WIDTH_INCHES, height / total)
            _paint_panel(figure.add_axes(box), panel, region)
    title = f"Generated scans, no patients. Outlines of the {region.replace('_', ' ')}."
    _write(figure, _GAP_INCHES, 0.5 * _TEXT_INCHES, title)
    keys = [Line2D([], [], color=TRUTH, label="truth"), Line2D([], [], color=PREDICTED, ls="--", label="prediction")]
    figure.legend(handles=keys, loc="lower right", ncols=2, frameon=False, labelcolor=INK, borderaxespad=0.3)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DOTS_PER_INCH)
    canvas.draw()
    return _save(np.asarray(canvas.buffer_rgba())[..., :3], output)


def _caption(one: Row, region: str) -> str:
    row = next(row for row in one["rows"] if row["region"] == region)
    return f"{one['name']}   Dice {row['dice']:.3f}   {row['volume_ml']:.1f} ml, true {row['truth_volume_ml']:.1f} ml"


def _write(figure: "Figure", x_inches: float, y_inches: float, text: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(x_inches / width, y_inches / height, text, color=INK, fontsize=10, va="center")


def _paint_panel(axes: "Axes", panel: Panel, region: str) -> None:
    from PIL import Image

    data = base64.b64decode(panel.picture.partition(",")[2])
    extent = (0, panel.width, panel.height, 0)
    axes.imshow(
        Image.open(io.BytesIO(data)), cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="bilinear",
        aspect=(panel.height_mm / panel.height) / (panel.width_mm / panel.width),
    )  # fmt: skip
    for path, colour, style in (
        ((panel.truth or {}).get(region, ""), TRUTH, "-"),
        (panel.predicted[region], PREDICTED, (0, (3, 1.5))),
    ):
        for ring in path.split("M")[1:]:
            x, y = np.array([corner.split() for corner in ring.removesuffix("Z").split("L")], float).T
            axes.plot([*x, x[0]], [*y, y[0]], color=colour, ls=style, lw=1.2)
    axes.set_axis_off()


def _save(pixels: np.ndarray, output: Path) -> Path:
    from PIL import Image

    output.parent.mkdir(parents=True, exist_ok=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette().ravel().tolist())
    image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(palette=palette, dither=Image.Dither.NONE)
    image.save(output, "PNG", optimize=True)
    return output


def _palette() -> np.ndarray:
    """Greys, the outlines' colours blended with some of them, paper and ink: (n, 3) uint8; it keeps files small."""
    greys = np.repeat(np.linspace(0, 255, _GREYS)[:, None], 3, axis=1)
    behind = np.array([0.0, 80.0, 160.0, 240.0])[:, None]
    blends = [
        share * rgb(colour) + (1 - share) * behind for colour in (TRUTH, PREDICTED) for share in (0.25, 0.5, 0.75)
    ]
    pure = [rgb(colour)[None] for colour in (TRUTH, PREDICTED, PAPER, INK)]
    return np.concatenate([greys, *blends, *pure]).round().astype(np.uint8)


def rgb(colour: str) -> np.ndarray:
    """The three numbers of a colour such as `#5ec4ff`, (3,) float64."""
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], float)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture that the command line asks for."""
    about = "Draw the best, the middle and the worst test scan of a generated cohort."
    parser = argparse.ArgumentParser(prog="python -m segpipe.report.picture", description=about)
    parser.add_argument("--warehouse", default="demo/tables", help="folder of the tables (default: %(default)s)")
    parser.add_argument("--cohort", default="synthetic", help="name of the generated cohort (default: %(default)s)")
    parser.add_argument("--model", default="demo/model", help="model directory (default: %(default)s)")
    output = Path("docs/pictures/result.png")
    parser.add_argument("output", nargs="?", type=Path, default=output, help="PNG to write (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        output = draw(options.warehouse, options.cohort, options.model, options.output)
    except SegpipeError as error:
        print(f"segpipe: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
