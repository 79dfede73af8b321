#!/usr/bin/env bash
# Everything that needs a GPU, from a bare checkout: CUDA tests, where a skip is a failure, the suite, then the CUDA suite.
# Results and report go to ${OUT:-bench/out}; BENCH_SUITE, BENCH_DATA, BENCH_ONLY, BENCH_EPOCHS, BENCH_FACTORS and
# BENCH_CUDA_SECONDS (of the CUDA suite, 480) are passed on, and BENCH_RESUME=1, which goes on with an unfinished CUDA suite.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=$(mkdir -p "${OUT:-bench/out}" && cd "${OUT:-bench/out}" && pwd)
export OUT
# Only files with CUDA tests: others import packages that a bare machine lacks. pytest-timeout may be one of those.
mapfile -t tests < <(grep -l 'mark\.cuda' tests/test_*.py)
code=0
"$PYTHON" -m pytest "${tests[@]}" -m cuda --require-cuda -W ignore::pytest.PytestConfigWarning || code=$?
# A failed test must not cost the measurements, nor be forgotten after them; nor must a failed suite.
for suite in bench.suite bench.cuda; do
  "$PYTHON" -m "$suite" || code=$?
done
exit "$code"
