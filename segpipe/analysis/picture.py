"""A matplotlib figure that every notebook shows, whether it uses pyplot or not."""

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_DOTS_PER_INCH = 110


class Picture(Figure):
    """A figure outside of pyplot: shown once, where it is a cell's result."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
        return buffer.getvalue()
