"""The site's own defaults: the file conf/segpipe.toml, or the one that SEGPIPE_CONF names."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from segpipe.errors import UsageError, nearest
from segpipe.launch.project import CONF, job_names
from segpipe.settings import plain_type
from segpipe.toml import tomllib


def site_file() -> Path | None:
    """The file of SEGPIPE_CONF, the project's conf/segpipe.toml, or what spark-submit shipped; None if none is."""
    if given := os.environ.get("SEGPIPE_CONF"):
        if not Path(given).is_file():
            raise UsageError(
                f"settings file {given} (SEGPIPE_CONF) does not exist", "name an existing file, or unset it"
            )
        return Path(given)
    shipped = (CONF / "segpipe.toml", Path("segpipe.toml"))
    return next((path for path in shipped if path.is_file()), None)


def site_settings(job: str, settings_class: type[Any]) -> dict[str, Any]:
    """The section of `job` in the site's file; UsageError for unknown sections and keys and for wrong types."""
    path = site_file()
    if path is None:
        return {}
    section = _sections(path).get(job, {})
    kinds = typing.get_type_hints(settings_class)
    known = sorted(setting.name for setting in fields(settings_class) if setting.default is not MISSING)
    for key in section:
        if key not in known:
            raise _unknown(path, f"key `{key}` in [{job}]", key, known)
    return {key: _of_kind(path, job, key, value, plain_type(kinds[key])) for key, value in section.items()}


def _sections(path: Path) -> Mapping[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {path} is not TOML ({error})", "correct that line") from None
    for section, keys in content.items():
        if not isinstance(keys, dict) or section not in job_names():
            raise _unknown(path, f"section [{section}]", section, job_names())
    return content


def _of_kind(path: Path, job: str, key: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{path} sets `{key}` in [{job}] to {value!r}", f"give a value of type {kind.__name__}")
    return value


def _unknown(path: Path, what: str, word: str, known: Sequence[str]) -> UsageError:
    near = nearest(word, known)
    return UsageError(f"{path} holds the unknown {what}", f"did you mean `{near}`?" if near else "remove it")
