#!/usr/bin/env bash
# Trains on all hosts of a TPU VM that is there and has this checkout installed in ~/unilseg_jax.
# Usage: TPU=name ZONE=zone launch/tpu_vm.sh CONFIG WORKDIR [--config.key=value ...]   WORKDIR: seen by all hosts
set -euo pipefail
[ $# -ge 2 ] && [ -n "${TPU:-}" ] && [ -n "${ZONE:-}" ] || {
  echo "usage: TPU=name ZONE=zone launch/tpu_vm.sh CONFIG WORKDIR [--config.key=value ...]" >&2
  exit 2
}
config=$1 workdir=$2
shift 2
# Quoted once more, for the shell of each host.
printf -v command '%q ' launch/local.sh "$config" "$workdir" --config.distributed.coordinator=auto "$@"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="cd ~/unilseg_jax && $command"
