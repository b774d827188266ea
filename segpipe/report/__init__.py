"""One HTML page about a model on a cohort, for people who open no notebook."""

from segpipe.report.page import build, build_preparations

__all__ = ["build", "build_preparations"]
