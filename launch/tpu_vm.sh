#!/usr/bin/env bash
# Asks for a TPU slice, installs stilts on all its hosts, runs a command there, and repeats this after preemptions.
#
#   NAME=my-run ZONE=us-east5-b TYPE=v6e-64 launch/tpu_vm.sh [--dry_run] grid --config=... --workdir=gs://B/work
#   NAME=my-run ZONE=us-east5-b launch/tpu_vm.sh [--dry_run] --delete
#
# --dry_run prints the commands. OUT: where results are copied to; SPOT= (empty): on demand; VERSION: the image;
# SETUP: what each host does once, as SETUP='gcloud storage rsync --recursive gs://B/data data' (encoder: --config.encoder=gs://B/E).
set -euo pipefail

dry=false missing=""
if [[ "${1:-}" == --dry_run ]]; then dry=true; shift; elif [[ "$*" == "--delete --dry_run" ]]; then dry=true; fi
for name in NAME ZONE TYPE; do
  if [[ -z "${!name:-}" && "${1:-} $name" != "--delete TYPE" ]]; then missing+="$name is not set. "; fi
done
if [[ $# == 0 || " $* " =~ " "(-h|--help)" " ]]; then missing="No stilts command to run is given."; fi
if [[ ! "${TRIES:-100}" =~ ^[1-9][0-9]*$ ]]; then missing+="TRIES must be a number from 1, and not '$TRIES'."; fi
if [[ -n "$missing" ]]; then echo "$missing" >&2; sed -n '4,8s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
"$dry" || command -v gcloud >/dev/null ||
  { echo "gcloud is not found: install the Google Cloud CLI, or see the commands with --dry_run." >&2; exit 2; }
# Ctrl-C is meant: what gcloud makes of it would be taken for a lost connection.
trap 'echo "stopped; the slice is still held: $0 --delete gives it back" >&2; exit 130' INT
queue=(gcloud compute tpus queued-resources)
ssh=(gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all)
if [[ "${SPOT-yes}" == "" ]]; then spot=(); else spot=(--spot); fi
source="${TMPDIR:-/tmp}/$NAME.tar.gz" log="${TMPDIR:-/tmp}/$NAME.log"
here="$(dirname "$0")/.."

run() { printf '%q ' "$@"; echo; "$dry" || "$@"; }
release() { run "${queue[@]}" delete "$NAME" --zone="$ZONE" --force --quiet; }
state() { "${queue[@]}" describe "$NAME" --zone="$ZONE" --format='value(state.state)' 2>/dev/null || echo NONE; }

if [[ "$1" == --delete ]]; then release; exit; fi
commit="$(git -C "$here" rev-parse HEAD)" || "$dry" || { echo "The hosts get a commit: clone with git." >&2; exit 2; }

acquire() {
  local now=NONE # asked once: where the network was away, the next answer may be another one
  "$dry" || now="$(state)"
  # What was preempted or failed keeps its name until it is deleted; what waits for a machine keeps its place.
  if [[ "$now" =~ ^(FAILED|SUSPEND) ]]; then release; now=NONE; fi
  [[ "$now" != NONE ]] || run "${queue[@]}" create "$NAME" --node-id="$NAME" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="${VERSION:-v2-alpha-tpuv6e}" "${spot[@]}" || return
  until "$dry" || [[ "$(state)" =~ ^(ACTIVE|FAILED|SUSPENDED|NONE)$ ]]; do sleep 30; done
}
# Each time, as an earlier try may have ended half-way; what is whole there is kept. SETUP has its own shell.
install() {
  local setup="${SETUP:-true}"
  run git -C "$here" archive --format=tar.gz --output="$source" HEAD &&
    run gcloud compute tpus tpu-vm scp "$source" "$NAME:stilts_jax.tar.gz" --zone="$ZONE" --worker=all &&
    run "${ssh[@]}" --command="test -e venv/$commit || { rm -rf src venv && mkdir src && tar -xzf stilts_jax.tar.gz -C src &&
      PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv && python3 -m uv venv -q --seed --python=3.12 venv && venv/bin/pip install './src[tpu,gcs,hub]' && bash -c ${setup@Q} && touch venv/$commit; }"
}

printf -v words ' %q' "$@"
# What a lost connection left behind holds the chips: it saves and ends first.
remote="for i in {1..60}; do pkill -f '^[^ ]*/python[^ ]* venv/bin/stilts' || break; sleep 5; done; "
# gcloud's own exit code says nothing of the hosts' codes, so each host prints its own.
init="${LIBTPU_INIT_ARGS:-}" remote+="LIBTPU_INIT_ARGS=${init@Q} venv/bin/stilts$words; echo stilts-exit=\$?"
code=1 failed=0 # where there is never a machine, or no package on it
for ((try = 1; try <= ${TRIES:-100}; try++)); do
  { acquire && install && failed=0; } || { # a machine that is there, and can't be set up, costs money
    [[ "$(state)" != ACTIVE ]] || ((++failed < 3)) || { echo "setting up failed three times (see above); $0 --delete gives the slice back" >&2; code=1; break; }
    sleep "${PAUSE:-30}"; continue
  }
  run "${ssh[@]}" --command="$remote" | tee "$log" || true
  if "$dry"; then code=0; break; fi
  # One code of a host's own failure is final. Codes 75, signals and silence: run it again.
  code="$( (grep -Eo 'stilts-exit=[0-9]+' "$log" || echo '=75') | awk -F= '
    $2 == 75 || $2 > 128 && $2 != 130 {again = 1; next} $2 > worst {worst = $2}
    END {print worst ? worst : again ? 75 : 0}')"
  if ((code != 75)); then break; fi
done
for word in "$@"; do # --workdir=gs://B/work or --workdir gs://B/work
  folder="${word#--workdir=}" before="${last:-}" last="$word"
  [[ "$folder" == gs://* && ("$word" != "$folder" || "$before" == --workdir) ]] || continue
  run "${ssh[@]/--worker=all/--worker=0}" --command="venv/bin/stilts report ${folder@Q}" || true
  run gcloud storage rsync --recursive "${folder%/}/report" "${OUT:-results}" || true
done
"$dry" || echo "the slice is still held: $0 --delete gives it back" >&2; exit "$code"
