#!/usr/bin/env bash
# Runs part i of n of a grid on this machine; the machines share the work directory.
#
#   launch/grid.sh [--dry_run] 2/4 --config=xstilts:seeds=3 --data_root=D --workdir=W      machine 2 of 4
#   launch/grid.sh [--dry_run] all/8 --config=...                                          8 GPUs of this machine
#
# Runs of a grid are independent after their intermediate: one run a GPU beats one run over all GPUs.
set -euo pipefail

dry=()
if [[ "${1:-}" == --dry_run ]]; then dry=(--dry_run); shift; fi
part="${1:-}"
all=1 # as a number it is the first part
if [[ ! "$part" =~ ^(all|[1-9][0-9]*)/[1-9][0-9]*$ ]] || ((${part%/*} > ${part#*/})); then
  usage="$(sed -n '2,7s/^# \{0,1\}//p' "$0")"
  if [[ "$part" == -h || "$part" == --help ]]; then echo "$usage"; exit; fi
  printf '%s\n' "The first argument must be the part of the grid, such as 2/4 or all/8, and not '$part'." "$usage" >&2
  exit 2
fi
shift
count="${part#*/}"
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-}" # where only some are ours
local_gpu="$(dirname "$0")/local_gpu.sh"
if [[ "$part" != all/* ]]; then exec "$local_gpu" "${dry[@]}" grid --part="$part" "$@"; fi

if ((${#gpus[@]} && ${#gpus[@]} < count)); then
  echo "CUDA_VISIBLE_DEVICES names ${#gpus[@]} GPUs, too few for $count parts." >&2; exit 2
fi
set -m # without job control commands in the background would ignore Ctrl-C
processes=()
signals=0
pass_on() { signals=$((signals + 1)); kill -"$1" "${processes[@]}" 2>/dev/null || true; }
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM HUP
for ((index = 1; index <= count; index++)); do
  GPUS="${gpus[index - 1]:-$((index - 1))}" "$local_gpu" "${dry[@]}" grid --part="$index/$count" "$@" &
  processes+=($!)
  # In a dry run one after the other, so that what is printed keeps its order.
  if ((${#dry[@]})); then wait $!; fi
done
worst=0
for process in "${processes[@]}"; do
  while true; do # a signal ends `wait` early
    seen=$signals code=0
    wait "$process" || code=$?
    if ((signals == seen)); then break; fi
  done
  if ((code > worst)); then worst=$code; fi
done
exit "$worst"
