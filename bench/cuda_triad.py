"""Copy and triad in Triton, many passes in one launch; only imported where Triton is."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def passes(out, a, b, scale, n_blocks, times, TRIAD: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """``times`` times out = a + scale·b, or out = a, over ``n_blocks`` blocks of ``BLOCK`` numbers.

    Each pass gives a program other blocks than the one before, past the first-level cache, where they would stay.
    """
    for turn in range(times):
        for block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
            at = ((block + turn * 7) % n_blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
            x = tl.load(a + at, cache_modifier=".cg")
            if TRIAD:
                x += scale * tl.load(b + at, cache_modifier=".cg")
            tl.store(out + at, x)
