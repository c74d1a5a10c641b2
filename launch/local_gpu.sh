#!/usr/bin/env bash
# Runs a stilts command on this machine's GPUs and repeats it for as long as it asks to be run again.
#
#   launch/local_gpu.sh [--dry_run] train --config=target:task=xnli --data_root=D --workdir=W
#
# --dry_run prints the commands instead. GPUS=0,1 takes only these; TRIES is how often a command is run at most (100).
# Ctrl-C and SIGTERM are passed on: stilts saves and ends, and is not started again.
set -euo pipefail

dry=false
if [[ "${1:-}" == --dry_run ]]; then dry=true; shift; fi
if (($# == 0)); then echo "No stilts command is given." >&2; sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
if [[ ! "${TRIES:-100}" =~ ^[1-9][0-9]*$ ]]; then echo "TRIES must be a number from 1, and not '$TRIES'." >&2; exit 2; fi

# Latency hiding: the next layer's weights are gathered while this layer computes (more than one GPU).
flags="--xla_gpu_enable_latency_hiding_scheduler=true"
command=(env XLA_FLAGS="${XLA_FLAGS:-} $flags")
if [[ -n "${GPUS:-}" ]]; then command+=(CUDA_VISIBLE_DEVICES="$GPUS"); fi
command+=(stilts "$@")

set -m # without job control a command in the background would ignore Ctrl-C
signals=0
child=""
pass_on() { signals=$((signals + 1)); if [[ -n "$child" ]]; then kill -"$1" "$child" 2>/dev/null || true; fi; }
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM HUP

for ((try = 1; try <= ${TRIES:-100}; try++)); do
  printf '%q ' "${command[@]}"; echo
  if "$dry"; then exit; fi
  "${command[@]}" &
  child=$!
  while true; do # a signal ends `wait` early
    seen=$signals code=0
    wait "$child" || code=$?
    if ((signals == seen)); then break; fi
  done
  # 75: preempted after saving. Above 128: killed by a signal; but Ctrl-C (130) is meant.
  if ((signals > 0 || code == 130 || code != 75 && code <= 128)); then exit "$code"; fi
  if ((try < ${TRIES:-100})); then next="running it again ($try)"; else next="no try is left"; fi
  echo "stilts ended with $code; $next" >&2
done
exit "$code"
