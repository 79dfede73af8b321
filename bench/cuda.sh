#!/usr/bin/env bash
# The whole GPU job from a bare checkout: CUDA tests, where a skip is a failure, then the suite with its CUDA cases.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m pytest tests/test_torch.py -m cuda --require-cuda
python3 - <<'PY'
import os
from pathlib import Path

from bench import report
from bench.suite import run_suite

result = run_suite(say=print)
for row in report.table(result):
    print(*row, sep="\t")
print(report.verdict(result), *report.write(result, Path(os.environ.get("OUT", "bench/out"))), sep="\n")
raise SystemExit(0 if result["ok"] else 1)
PY
