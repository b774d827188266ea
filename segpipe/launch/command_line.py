"""The command line of ./spark-submit.sh and `segpipe`: options of spark-submit, the job, and the job's own options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from segpipe.errors import UsageError
from segpipe.launch.project import CONF, JOBS, command, job_names
from segpipe.launch.submitted import PASSED_THROUGH, SWITCHES, VALUE_OPTIONS, pairs, settings_of

_AFTER = "options of a job go after its name"
_PROFILES = "local, standalone or yarn"
_LISTS = ("--jars", "--py-files", "--files")  # more is added to them before spark-submit gets them


@dataclass(frozen=True)
class CommandLine:
    """What was typed: `job` is empty where help or an answer of spark-submit's own is asked for."""

    options: tuple[str, ...] = ()
    profile: str = ""
    job: str = ""
    arguments: tuple[str, ...] = ()
    help: bool = False
    passed_through: tuple[str, ...] = ()

    @cached_property
    def settings(self) -> dict[str, str]:
        """The Spark settings of options and properties file."""
        return settings_of(self.options)

    @property
    def master(self) -> str:
        return self.settings.get("spark.master") or "local"

    @property
    def deploy_mode(self) -> str:
        return self.settings.get("spark.submit.deployMode", "client")

    @property
    def plain_options(self) -> list[str]:
        """The options without the lists that more is added to."""
        kept: list[str] = []
        words = iter(self.options)
        for word in words:
            value = [next(words)] if word in VALUE_OPTIONS else []
            if word not in _LISTS:
                kept += [word, *value]
        return kept

    def listed(self, option: str) -> list[str]:
        """The entries of `--jars`, `--py-files` or `--files`."""
        return [entry for entry in self._last(option).split(",") if entry]

    def with_profile(self) -> CommandLine:
        """The same with the properties file of its profile: the one asked for, or the one that fits the master."""
        if self._last("--properties-file"):
            return self
        profile = self.profile or _fitting(self.settings.get("spark.master", ""))
        conf = CONF / f"spark-{profile}.conf"
        options = (*self.options, "--properties-file", str(conf)) if profile and conf.is_file() else self.options
        return replace(self, options=options, profile=profile)

    def check(self) -> None:
        """Raise UsageError for what cannot be submitted."""
        jobs = " ".join(job_names())
        if not self.job:
            raise UsageError("No job given", f"choose one of {jobs}")
        if self.job not in job_names():
            raise UsageError(f"Unknown job `{self.job}`", f"choose one of {jobs}")
        if self.profile and not (CONF / f"spark-{self.profile}.conf").is_file():
            missing = f"there is no conf/spark-{self.profile}.conf; choose {_PROFILES}"
            raise UsageError(f"Unknown profile `{self.profile}`", missing)
        properties = self._last("--properties-file")
        if self.profile and properties:
            raise UsageError(f"Both --profile {self.profile} and --properties-file {properties}", "give one of them")
        if properties and not Path(properties).is_file():
            remedy = f"give --properties-file a file, or --profile {_PROFILES.replace(', ', '|').replace(' or ', '|')}"
            raise UsageError(f"Properties file {properties} does not exist", remedy)

    def _last(self, option: str) -> str:
        return ([value for name, value in pairs(self.options) if name == option] or [""])[-1]


def read(words: Sequence[str]) -> CommandLine:
    """The command line in its parts; UsageError for an option that spark-submit does not know.

    >>> read(["--master=yarn", "--verbose", "ingest", "--cohort", "c"]).options
    ('--master', 'yarn', '--verbose')
    """
    if not words:
        return CommandLine(help=True)
    options: list[str] = []
    profile, rest = "", list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word in ("--help", "-h"):
            return CommandLine(help=True)
        if word in PASSED_THROUGH:
            return CommandLine(tuple(options), passed_through=(word, *rest))
        if name in SWITCHES and not equals:
            options.append(name)
        elif name in VALUE_OPTIONS or name == "--profile":
            if not equals:
                value = _value(name, rest)
            if name == "--profile":
                profile = value
            else:
                options += [name, value]
        else:
            raise UsageError(f"Unknown spark-submit option {name}", _AFTER)
        if name == "--remote":
            raise UsageError("Option --remote (Spark Connect) does not work with segpipe", "give --master")
    return CommandLine(tuple(options), profile, *_job(rest))


def _job(rest: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    return (rest[0], tuple(rest[1:])) if rest else ("", ())


def _value(name: str, rest: list[str]) -> str:
    if not rest:
        remedy = f"give {_PROFILES}" if name == "--profile" else f"see {command()} --help"
        raise UsageError(f"Option {name} needs a value", remedy)
    return rest.pop(0)


def _fitting(master: str) -> str:
    """The profile of a master, none for one that has none.

    >>> [_fitting(master) for master in ("", "local[2]", "spark://host:7077", "yarn", "k8s://host")]
    ['local', 'local', 'standalone', 'yarn', '']
    """
    if not master or master.startswith("local"):
        return "local"
    return "standalone" if master.startswith("spark://") else "yarn" if master == "yarn" else ""


def help_text() -> str:
    """What --help prints: every job with the first line of its program."""
    jobs = "\n".join(f"  {name:<10} {_first_line(JOBS / f'{name}.py')}" for name in job_names())
    return f"""usage: {command()} [spark-submit options] [--profile local|standalone|yarn] JOB [options of the job]

Runs a segpipe job on Spark. `{command()} JOB --help` shows the options of a job.

jobs:
{jobs}

  --profile NAME   take the Spark settings of conf/spark-NAME.conf (default: the profile that fits --master, or local)

Every option of spark-submit (--master, --conf, --deploy-mode, --queue, …) goes before the job and reaches it unchanged.
Site settings of the jobs are in conf/segpipe.toml (or the file of SEGPIPE_CONF).

environment: SEGPIPE_PYTHON (Python to use instead of .venv), JAVA_HOME, HADOOP_CONF_DIR
exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but inputs were quarantined under --strict, 130 interrupted,
143 terminated"""


def _first_line(program: Path) -> str:
    with program.open() as lines:
        return next(lines).strip().strip('"')
