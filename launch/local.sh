#!/usr/bin/env bash
# Trains on this machine, in one process over all its devices; a run that dies goes on from its last checkpoint.
# Usage: launch/local.sh CONFIG WORKDIR [--config.key=value ...]      RESTARTS=3 by default
# SIGTERM, SIGUSR1 or Ctrl-C to this script: the run saves and stops, and stays stopped.
set -uo pipefail
[ $# -ge 2 ] || { echo "usage: launch/local.sh CONFIG WORKDIR [--config.key=value ...]" >&2; exit 2; }
config=$1 workdir=$2
shift 2
# For what starts again.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$workdir/compiled}
run='' asked=''
trap 'asked=1; [ -z "$run" ] || kill -TERM "$run" 2>/dev/null' TERM USR1 INT
attempt=0
while :; do
  python -m unilseg_jax.train --config "$config" --workdir "$workdir" "$@" &
  run=$!
  # It came when there was no run to hand it on to.
  [ -z "$asked" ] || kill -TERM "$run" 2>/dev/null
  # A signal ends `wait`, with a code of its own, while the run still saves.
  while wait "$run"; code=$?; kill -0 "$run" 2>/dev/null; do :; done
  if [ -n "$asked" ]; then
    # One that came just as the run ended. Where Bash has lost the run's own code, the same command goes on in any case.
    case $code in -1 | 127 | 130 | 138 | 143) wait "$run" 2>/dev/null; code=$? ;; esac
    case $code in -1 | 127 | 143) code=75 ;; esac  # 143: it did not listen yet, or no more
  fi
  # 0: finished; 2: bad input; 3: diverged; 130: stopped by hand. Starting again would not help.
  case $code in 0 | 2 | 3 | 130) exit "$code" ;; esac
  [ -z "$asked" ] || exit "$code"
  # 75: stopped by a signal, all saved. Anything else is a crash, and many of them are no accident.
  [ "$code" -eq 75 ] || attempt=$((attempt + 1))
  [ "$attempt" -le "${RESTARTS:-3}" ] || exit "$code"
  echo "run ended with code $code; starting again" >&2
done
