#!/usr/bin/env bash
# Trains on this machine, in one process over all its devices; a run that dies goes on from its last checkpoint.
# Usage: launch/local.sh CONFIG WORKDIR [--config.key=value ...]      RESTARTS=3 by default
set -uo pipefail
[ $# -ge 2 ] || { echo "usage: launch/local.sh CONFIG WORKDIR [--config.key=value ...]" >&2; exit 2; }
config=$1 workdir=$2
shift 2
for ((attempt = 0; attempt <= ${RESTARTS:-3}; attempt++)); do
  python -m unilseg_jax.train --config "$config" --workdir "$workdir" "$@"
  code=$?
  # 0: finished; 2: bad input; 3: diverged; 130: stopped by hand. Starting again would not help.
  case $code in 0 | 2 | 3 | 130) exit "$code" ;; esac
  echo "run ended with code $code; starting again" >&2
done
exit "$code"
