"""Instruction sets other than this machine's, as Numba compiles for them."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

_FEATURES = {"x86-64": "+sse2", "haswell": "+sse4.2,+avx,+avx2,+fma"}
"""Those with narrower registers than a machine may have, the first without multiply-add too."""
NARROWER = ("x86-64", pytest.param("haswell", marks=pytest.mark.thorough))
"""The same, of which one is always tried."""


def compiling_for(cpu: str) -> dict[str, str]:
    """What has Numba compile for one; where that has the machine's own width, the test is skipped."""
    if cpu == "haswell" and not llvm.get_host_cpu_features().get("avx512f"):
        pytest.skip("this machine's own vectors are as long")
    return {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": _FEATURES[cpu]}
