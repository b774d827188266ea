"""segpipe: archives of brain MRI to answers on a Spark cluster."""

__version__ = "0.1.0"
