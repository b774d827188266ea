"""Command-line options, derived from the dataclass of a job's settings: defaults < site's file < flags."""

from __future__ import annotations

import argparse
import re
import typing
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, TypeVar

from segpipe.cli.site import site_settings
from segpipe.errors import UsageError, nearest
from segpipe.launch.project import command
from segpipe.settings import check as check_ranges
from segpipe.settings import flag_of, help_of, is_excused, plain_type

S = TypeVar("S")

_EPILOG = (
    "exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but inputs were quarantined under --strict, "
    "130 interrupted, 143 terminated. Defaults of a site go into conf/segpipe.toml."
)
_METAVARS = {int: "N", float: "X"}
_KINDS = {"int": "a whole number", "float": "a number"}
_INVALID = re.compile(r"argument (--[\w-]+): invalid (int|float) value: (.*)")
_NO_VALUE = re.compile(r"argument (--[\w-]+): expected one argument")
_CHOICE = re.compile(r"argument (--[\w-]+): invalid choice: (.*) \(choose from (.*)\)")


def parse(job: str, settings_class: type[S], argv: Sequence[str]) -> S:
    """The settings of `job`: flags in `argv` over the site's file over the defaults. Raises UsageError."""
    site = site_settings(job, settings_class)
    parser = parser_of(job, settings_class, {*site, *_excused(settings_class, argv, site)})
    parser.check_flags(argv)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if name != "verbose"}
    settings = settings_class(**{**site, **given})
    check_ranges(settings)
    return settings


def _excused(settings_class: type[Any], argv: Sequence[str], site: Mapping[str, Any]) -> list[str]:
    """The options that a switch, given as a flag or by the site, makes needless."""
    switches = {word.removeprefix("--").replace("-", "_") for word in argv} | {n for n in site if site[n] is True}
    return [setting.name for setting in fields(settings_class) if is_excused(setting, switches)]


def parser_of(job: str, settings_class: type[Any], known: Collection[str] = ()) -> Parser:
    """The argument parser of a settings dataclass; what is `known` without flags is not required."""
    parser = Parser(
        prog=f"{command().removeprefix('./')} {job}",
        description=settings_class.__doc__,
        epilog=_EPILOG,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    kinds = typing.get_type_hints(settings_class)
    for setting in sorted(fields(settings_class), key=lambda setting: not setting.metadata["required"]):
        _add_flag(parser, setting, kinds[setting.name], setting.name not in known)
    parser.add_argument("--verbose", action="store_true", help="show the stack trace of an error")
    return parser


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors with the nearest flag as remedy."""

    @property
    def remedy(self) -> str:
        return f"see `{command()} {self.prog.split()[-1]} --help`"

    def error(self, message: str) -> typing.NoReturn:
        message = message.replace("the following arguments are required: ", "missing ")
        message = _INVALID.sub(lambda found: f"{found[1]} is {found[3]} but must be {_KINDS[found[2]]}", message)
        message = _CHOICE.sub(r"\1 is \2 but must be one of \3", message)
        message = _NO_VALUE.sub(r"\1 needs a value", message)
        raise UsageError(message, self.remedy)

    def check_flags(self, argv: Sequence[str]) -> None:
        """Raise UsageError for a flag whose value would replace an earlier one's, and for the first unknown flag.

        So it is before anything is said of what is missing.
        """
        known = [flag for action in self._actions for flag in action.option_strings]
        valued = {flag for action in self._actions if action.nargs != 0 for flag in action.option_strings}
        for flag, count in Counter(word.split("=")[0] for word in argv).items():
            if flag in valued and count > 1:
                raise UsageError(f"{flag} is given {count} times", "give it once")
        for word in argv:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in known:
                near = nearest(flag, known)
                raise UsageError(f"unknown option {flag}", f"did you mean {near}?" if near else self.remedy)


def _add_flag(parser: argparse.ArgumentParser, setting: Field[Any], kind: Any, wanted: bool) -> None:
    required = setting.metadata["required"] and wanted
    if plain_type(kind) is bool:
        action = "store_true" if setting.default is False else argparse.BooleanOptionalAction
        parser.add_argument(flag_of(setting), action=action, help=_escaped(setting))
        return
    value_type = plain_type(kind)
    parser.add_argument(
        flag_of(setting),
        type=value_type,
        choices=setting.metadata["choices"],
        required=required,
        metavar=None if setting.metadata["choices"] else _METAVARS.get(value_type, "TEXT"),
        help=_escaped(setting) + (_required(setting) if required else ""),
    )


def _required(setting: Field[Any]) -> str:
    switch = setting.metadata["unless"]
    return f" (required, unless --{switch} is given)" if switch else " (required)"


def _escaped(setting: Field[Any]) -> str:
    return help_of(setting).replace("%", "%%")
