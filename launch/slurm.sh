#!/usr/bin/env bash
# Trains on the GPUs of a Slurm job, one process per GPU; requeues itself before its time is over.
# Usage: sbatch --nodes=24 launch/slurm.sh CONFIG WORKDIR [--config.key=value ...]     WORKDIR: seen by all nodes
# Nodes with another number of GPUs: give both --gpus-per-node and --ntasks-per-node.
#SBATCH --job-name=unilseg
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
[ $# -ge 2 ] || { echo "usage: sbatch launch/slurm.sh CONFIG WORKDIR [--config.key=value ...]" >&2; exit 2; }
config=$1 workdir=$2
shift 2
# For what starts again.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$workdir/compiled}
# No GPUs per task: each process must see all GPUs of its node. JAX takes the one of its number there, and NCCL
# reaches the others directly. The coordinator's address is not to be looked for behind a proxy.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
# A task that has saved ends with 75 while others still save: they must not be killed, or the job's code, the highest,
# is no longer 75. After 120 s srun ends what is left, such as tasks that wait for one that died.
srun --kill-on-bad-exit=0 --wait=120 --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" \
  python -m unilseg_jax.train --config "$config" --workdir "$workdir" "$@"
code=$?
# 75: a signal came, everything is saved.
if [ "$code" -eq 75 ]; then
  echo "stopped and saved; queued again" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
