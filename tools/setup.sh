#!/usr/bin/env bash
# Makes .venv from the lock files, or does nothing where it is up to date. Can be interrupted and run again.
set -euo pipefail

ROOT=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
cd "$ROOT"

VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
LOG=$VENV/setup.log
STAMP=$VENV/.segpipe-packages         # the key of the lock file that is installed as a whole
HOROVOD_STAMP=$VENV/.segpipe-horovod  # the same for the Horovod build
PROJECT_STAMP=$VENV/.segpipe-project  # the same for the project itself
CLASSES_STAMP=$VENV/.segpipe-classes  # the same for the class data of Spark's JVM, a line for each Java
UNFINISHED=$VENV/.segpipe-unfinished  # an installation was begun and not ended
NEEDED_MB=6000

say() { printf 'setup: %s\n' "$*" >&2; }

fail() { # problem, remedy
    printf 'segpipe setup: %s: %s\n' "$1" "$2" >&2
    exit 1
}

key_of() { # files
    cat -- "$@" | sha256sum | cut -c 1-16
}

is_python_311() {
    [[ $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == 3.11 ]]
}

find_python() { # sets BASE
    local name path
    for name in "${SEGPIPE_BASE_PYTHON:-python3.11}" python3.11 python3 python; do
        path=$(command -v -- "$name" || true)
        if [[ -n $path ]] && is_python_311 "$path"; then
            BASE=$path
            return
        fi
    done
    fail "Python 3.11 is not on this machine" \
        "install it (Debian 12: apt install python3.11 python3.11-venv; elsewhere: pyenv install 3.11), or name one in SEGPIPE_BASE_PYTHON"
}

check_machine() {
    [[ $(uname -s)/$(uname -m) == Linux/x86_64 ]] ||
        fail "This machine is $(uname -s) on $(uname -m)" "use Linux on x86_64: TensorFlow's and BigDL's packages are pinned for it"
    local free_mb
    free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
    if [[ ! -f $STAMP && $free_mb -lt $NEEDED_MB ]]; then
        fail "$ROOT has $free_mb MB free" "the packages take up to $NEEDED_MB MB: free some space"
    fi
}

make_venv() {
    if [[ -x $PYTHON ]] && is_python_311 "$PYTHON" && "$PYTHON" -c 'import pip' 2>/dev/null; then
        return
    fi
    check_machine
    find_python
    "$BASE" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$BASE cannot make environments (its module ensurepip is missing)" "apt install python3.11-venv"
    say "making .venv with $BASE ($("$BASE" -V))"
    rm -rf -- "$VENV"
    "$BASE" -m venv -- "$VENV" || fail "$BASE could not make $VENV" "see the lines above; a full disk or a folder without write permission are usual"
}

pip_install() { # label, arguments of pip install…
    local label=$1
    shift
    # A line now and then, the rest to the log: downloads alone can take minutes.
    if ! "$PYTHON" -m pip install --no-input --disable-pip-version-check --progress-bar off --no-deps --require-hashes "$@" 2>&1 |
        tee -a "$LOG" |
        awk -v label="$label" -v total="$TOTAL" '
            /^Collecting / { n++; if (n % 10 == 0) printf "setup: %s: %d of %d found\n", label, n, total }
            /^Installing collected packages/ { printf "setup: %s: unpacking\n", label }
            /^Building wheels/ { printf "setup: %s: compiling\n", label }
            { fflush() }' >&2; then
        return 1
    fi
}

install_packages() {
    local key force=()
    key=$(key_of requirements.lock requirements-data.lock)
    [[ $(cat "$STAMP" 2>/dev/null) == "$key" ]] && return
    check_machine
    TOTAL=$(cat requirements.lock requirements-data.lock | grep -c '^[a-z].*==')
    say "installing $TOTAL pinned packages (2 to 10 minutes, log in .venv/setup.log)"
    if [[ -f $UNFINISHED ]]; then
        say 'the last installation was interrupted: unpacking all packages again'
        force=(--force-reinstall)
    fi
    touch "$UNFINISHED"
    # pyspark alone comes as source; what builds it (wheel needs packaging) is pinned too, so it comes first.
    awk '/^[a-z]/ { keep = $1 ~ /^(setuptools|wheel|packaging)==/ } keep' requirements.lock >"$VENV/build-tools.lock"
    if ! { pip_install 'build tools' --only-binary :all: ${force[@]+"${force[@]}"} -r "$VENV/build-tools.lock" &&
        pip_install packages --only-binary :all: --no-binary pyspark --no-build-isolation \
            ${force[@]+"${force[@]}"} -r requirements.lock -r requirements-data.lock; }; then
        tail -n 5 "$LOG" >&2
        fail 'The packages could not be installed' 'see .venv/setup.log (no network, no pip index or a full disk are usual), then run the same command again'
    fi
    rm -f "$UNFINISHED"
    printf '%s\n' "$key" >"$STAMP"
}

horovod_key() { # changes with Horovod and with what it is compiled against, not with the other packages
    {
        cat requirements-horovod.lock
        grep -E '^(cffi|cmake|numpy|setuptools|tensorflow-cpu|tf-keras|wheel)==' requirements.lock
    } | sha256sum | cut -c 1-16
}

missing_for_horovod() {
    local tool
    for tool in g++ make; do
        command -v "$tool" >/dev/null || printf '%s ' "$tool"
    done
}

install_horovod() {
    local key missing
    key=$(horovod_key)
    [[ $(cat "$HOROVOD_STAMP" 2>/dev/null) == "$key" ]] && return
    missing=$(missing_for_horovod)
    if [[ -n $missing ]]; then
        say "Horovod is not built, so \`--trainer horovod\` is not there; missing: ${missing% } (apt install g++ make, then run this again). All else works."
        return
    fi
    TOTAL=1
    say 'building Horovod (1 to 3 minutes)'
    if PATH=$VENV/bin:$PATH MAKEFLAGS=-j$(nproc) HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 \
        HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
        pip_install Horovod --no-build-isolation -r requirements-horovod.lock; then
        printf '%s\n' "$key" >"$HOROVOD_STAMP"
    else
        say "Horovod could not be built, so \`--trainer horovod\` is not there; see .venv/setup.log. All else works."
    fi
}

install_project() { # editable, so that segpipe is found from any folder, and the program of that name is there
    [[ $(cat "$PROJECT_STAMP" 2>/dev/null) == "$(project_key)" ]] && return
    "$PYTHON" -m pip install --no-input --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . >>"$LOG" 2>&1 ||
        fail 'The project itself could not be installed into .venv' 'see .venv/setup.log'
    project_key >"$PROJECT_STAMP"
}

project_key() { # the folder is in what is installed, and what the packages are
    { pwd -P && cat pyproject.toml setup.py segpipe/__init__.py; } | sha256sum | cut -c 1-16
}

write_class_data() { # segpipe/launch/class_data.py says what for
    local key told
    key=$(classes_key)
    grep -qxF "$key" "$CLASSES_STAMP" 2>/dev/null && return
    if told=$(PYTHONPATH=$ROOT "$PYTHON" -P -m segpipe.launch.class_data 2>>"$LOG" | tail -n 1); then
        printf '%s\n' "$key" >>"$CLASSES_STAMP"
    fi
    say "$told"
}

classes_key() { # Spark's version, and the Java that runs it: one line in the stamp for each Java that set-up has met
    local java
    {
        grep '^pyspark==' requirements.lock
        for java in "${JAVA_HOME:-/none}/bin/java" "$(command -v java || true)"; do
            java=$(readlink -f -- "$java" || true)
            printf '%s\n' "$java"
            stat -c '%s %Y' -- "${java%/bin/java}/lib/server/libjvm.so" 2>/dev/null || true
        done
    } | sha256sum | cut -c 1-16
}

is_current() {
    [[ $(cat "$PROJECT_STAMP" 2>/dev/null) == "$(project_key)" ]] || return 1
    grep -qxF "$(classes_key)" "$CLASSES_STAMP" 2>/dev/null || return 1
    [[ -x $PYTHON && $(cat "$STAMP" 2>/dev/null) == $(key_of requirements.lock requirements-data.lock) ]] || return 1
    [[ $(cat "$HOROVOD_STAMP" 2>/dev/null) == $(horovod_key) ]] || [[ -n $(missing_for_horovod) ]]
}

if is_current; then
    exit 0
fi
exec 9>"$ROOT/.venv-setup.lock"
if ! flock -n 9; then
    say 'waiting for another set-up of this folder'
    flock 9
fi
make_venv
install_packages
install_horovod
install_project
write_class_data
say "$(PYTHONPATH=$ROOT "$PYTHON" -P -m segpipe.launch.java)"
say "ready after $SECONDS s"
