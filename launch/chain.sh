#!/usr/bin/env bash
# The whole way of the paper in minutes on a CPU: stand-ins of all sets, stage 1, stage 2 from it, fine-tuning from that.
# Usage: launch/chain.sh FOLDER [--config.key=value ...]      FOLDER is new; the runs end in FOLDER/runs
# Nothing is learnt: pictures are drawn, models are tiny. At full size the same three commands, without :debug, on real data.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: launch/chain.sh FOLDER [--config.key=value ...]" >&2; exit 2; }
[ ! -e "$1" ] || { echo "error: $1 is there already; name a new folder" >&2; exit 2; }
configs=$(cd "$(dirname "$0")/../configs" && pwd)
mkdir -p "$1"
cd "$1"
shift
# Compiling takes nearly all of the time.
export JAX_DISABLE_MOST_OPTIMIZATIONS=${JAX_DISABLE_MOST_OPTIMIZATIONS:-1}

for set in refcoco grefcoco coco_stuff ref_youtube_vos part_imagenet lip salient; do
  python -m unilseg_jax.prepare "$set" --synthetic 4 --raw "raw/$set" --out prepared
done

train() { # CONFIG WORKDIR [MODEL] [...]: the given model is where it starts from
  local config=$1 workdir=$2 model=$3
  shift 3
  echo "--- $config, from ${model:-nothing}"
  python -m unilseg_jax.train --config "$configs/$config.py:debug" --workdir "$workdir" \
    --config.init.model="$model" "$@"
}
train stage1 runs/stage1 "" "$@"
train stage2 runs/stage2 runs/stage1 "$@"
train finetune_refcoco runs/refcoco runs/stage2 "$@"
echo "done: $PWD/runs"
