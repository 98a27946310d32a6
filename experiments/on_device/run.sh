#!/usr/bin/env bash
# All that a GPU is wanted for, in eight minutes, on a machine without a network: it checks first and measures then, and
# keeps each result as soon as it is there.
#
#   python experiments/on_device/wheels.py                 # where there is a network: fills .whl/
#   OUT=results experiments/on_device/run.sh               # on the device: leaves results/on_device.json
#   python -m experiments.benchmarks.suite --take results/on_device.json --write
#
# The first word may be `rehearse`: the same from start to end, so small that a CPU is enough. Other words are options
# of rows.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:?names the folder for results}
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
if [[ ${1:-} == rehearse ]]; then
  shift
  set -- --rehearse "$@"
  XLA_FLAGS="$("$python" tests/support/compiling.py) ${XLA_FLAGS:-}"
  export XLA_FLAGS
else
  options=(--no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$scratch/site")
  "$python" -m pip install -q "${options[@]}" .whl/*.whl
  PYTHONPATH=$PYTHONPATH:$scratch/site
fi
# Each row is a process of its own: what one of them has compiled, another need not compile again.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$scratch/compiled} JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
"$python" -m experiments.on_device.rows "$out/on_device" "$@"
