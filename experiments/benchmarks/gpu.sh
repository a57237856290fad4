#!/usr/bin/env bash
# Fill all GPU rows of results/benchmarks in one run of at most 8 minutes:
#     bash experiments/benchmarks/gpu.sh
# Test this script without a GPU, at toy size and without writing results:
#     bash experiments/benchmarks/gpu.sh --quick
# LIMIT_S is the time limit; what is not measured by then keeps its old row. PYTHON is the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
limit=${LIMIT_S:-470}

if [ "${1:-}" = "--quick" ]; then
  exec "$python" experiments/benchmarks/run.py --gpu --quick --on-cpu --repeats 1 "${@:2}"
fi

# The most important rows first, each on its own, so that a time limit costs the last ones only.
names="train_short_gpu train_110m_gpu encode_110m_gpu mlm_110m_gpu train_600m_gpu encode_600m_gpu encode_gpu
train_passages_gpu hardware_gpu"
began=$SECONDS
for name in $names; do
  remaining=$((limit - (SECONDS - began)))
  if [ "$remaining" -lt 20 ]; then
    echo "time limit: $name is not measured" >&2
    continue
  fi
  timeout --kill-after=5 "$remaining" "$python" experiments/benchmarks/run.py --only "$name" --repeats "${REPEATS:-2}" "$@" ||
    echo "$name: failed or out of time" >&2
done
