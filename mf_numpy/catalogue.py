"""The faults that the checks must reject: each one line of the real source, and who got it wrong."""

from __future__ import annotations

from mf_numpy.faults import Fault

_LIST = (
    Fault(
        name="penalty-2-dropped",
        function="mf_numpy.gradients:gradient",
        right="reg = 2 * config.reg",
        wrong="reg = config.reg",
        origin="Taking λ|θ|² for ½λ|θ|², whose derivative is λθ: textbooks use both.",
        caught_by=("loops", "complex step", "along a line", "worked example", "exact minimiser"),
    ),
)

FAULTS = {fault.name: fault for fault in _LIST}
"""By name."""
