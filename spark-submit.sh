#!/usr/bin/env bash
# Runs a segpipe job through spark-submit. This finds the Python environment; the rest is segpipe/launch/submit.py.
set -euo pipefail
trap 'echo "segpipe: terminated before a job had begun: run the same command again" >&2; exit 143' TERM

# The current folder may be anybody's: no Python that is started from here looks for code in it.
export PYTHONSAFEPATH=1

ROOT=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")

fail() {
    printf 'segpipe: %s\n' "$1" >&2
    exit 1
}

absolute_only() { # entries of a search path; an empty or relative one means the current folder
    local entry kept='' IFS=:
    for entry in $1; do
        [[ $entry != /* ]] || kept+=${kept:+:}$entry
    done
    printf '%s' "$kept"
}

PYTHONPATH=$(set -f && absolute_only "${PYTHONPATH:-}")
PYTHON=$ROOT/.venv/bin/python
if [[ -n ${SEGPIPE_PYTHON:-} ]]; then
    ADVICE='set SEGPIPE_PYTHON to a Python 3.11'
    PYTHON=$(command -v -- "$SEGPIPE_PYTHON") ||
        fail "Python $SEGPIPE_PYTHON (SEGPIPE_PYTHON) does not exist: $ADVICE with segpipe's packages, or unset it"
    FOUND=$("$PYTHON" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        fail "Python $PYTHON does not run: run \`make setup\`, or $ADVICE"
    [[ $FOUND == 3.11 ]] || fail "Python $PYTHON is version $FOUND, not 3.11: run \`make setup\`, or $ADVICE"
elif [[ ! -x $PYTHON ]]; then
    fail "No Python environment in $ROOT/.venv: run \`make setup\` there, or set SEGPIPE_PYTHON"
fi
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} SEGPIPE_COMMAND=./spark-submit.sh
exec "$PYTHON" -m segpipe.launch "$@"
