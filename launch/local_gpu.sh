#!/usr/bin/env bash
# Runs a stilts command on this machine's GPUs and repeats it for as long as it asks to be run again.
#
#   launch/local_gpu.sh [--dry_run] train --config=target:task=xnli --data_root=D --workdir=W
#
# --dry_run prints the commands instead. GPUS=0,1 takes only these; TRIES is how often a command is repeated.
set -euo pipefail

dry=false
if [[ "${1:-}" == --dry_run ]]; then dry=true; shift; fi
if (($# == 0)); then sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; fi

run() {
  printf '%q ' "$@"; echo
  "$dry" || "$@"
}

# Latency hiding: the next layer's weights are gathered while this layer computes (more than one GPU).
flags="--xla_gpu_enable_latency_hiding_scheduler=true"
# The pool may take more than the default three quarters of the memory: nothing else runs on the card.
command=(env XLA_FLAGS="${XLA_FLAGS:-} $flags" XLA_PYTHON_CLIENT_MEM_FRACTION=0.93)
if [[ -n "${GPUS:-}" ]]; then command+=(CUDA_VISIBLE_DEVICES="$GPUS"); fi

for ((try = 1; try <= ${TRIES:-100}; try++)); do
  code=0
  run "${command[@]}" stilts "$@" || code=$?
  # 75: preempted after saving. Above 128: killed by a signal; but a person's Ctrl-C is meant.
  if ((code != 75 && code <= 128 || code == 130)); then exit "$code"; fi
  echo "stilts ended with $code; running it again ($try)" >&2
done
exit "$code"
