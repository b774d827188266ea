"""Run one benchmark: `python -m benchmarks NAME`."""

import importlib
import pkgutil
import sys

import benchmarks
from segpipe.errors import SegpipeError, UsageError


def names() -> list[str]:
    """The benchmarks that there are, sorted; `train-orca` is the module `train_orca`."""
    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark that the one argument names; 0 done, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        importlib.import_module(f"benchmarks.{_name(arguments).replace('-', '_')}").main()
    except SegpipeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _name(arguments: list[str]) -> str:
    known = names()
    if len(arguments) == 1 and arguments[0] in known:
        return arguments[0]
    there_are = ", ".join(known) or "none yet"
    raise UsageError(f"No benchmark `{' '.join(arguments)}`", f"name one of these: {there_are}")


if __name__ == "__main__":
    sys.exit(main())
