"""TOML for every Python: 3.11 brought tomllib, for 3.10 tomli is installed."""

import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["tomllib"]
