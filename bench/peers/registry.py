"""The libraries we are compared with: what is installed and how, under which licence, and what each computes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mf_numpy.datasets import cache_dir
from mf_numpy.errors import choose

TORCH = ("torch==2.13.0",)
"""Installed before a package that pulls torch, so that pip does not choose another build of it."""

NO_CACHE = "--no-cache-dir"
"""For what is compiled here: pip would else take up a wheel that it once built with other flags."""

AVX = "-O3 -march=native -DUSEAVX"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One library.

    Attributes:
        name: what it is called here.
        version: of the library; other than this is another peer.
        distribution: its name for pip.
        module: its name for ``import``.
        companions: further pinned packages, installed together with it.
        first: packages installed before it.
        options: more options of ``pip install``.
        variables: environment of ``pip install``, such as compiler flags.
        licence: an SPDX expression.
        method: the model and how it is fitted.
        data: ``ratings``, which it predicts, or ``confidence``: it ranks, and only its iterations are timed.
        start: settings to begin with (``lr``, ``reg`` and the adapter's own), used where a caller gives none.
        remarks: what must be known before its numbers are believed.
    """

    name: str
    version: str
    distribution: str
    module: str
    licence: str
    method: str
    companions: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    data: str = "ratings"
    start: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def adapter(self) -> str:
        """The module that runs it, for ``python -m``."""
        return f"bench.peers.adapter_{self.name.replace('-', '_')}"

    @property
    def packages(self) -> tuple[str, ...]:
        """What pip is asked for in the last step."""
        return (f"{self.distribution}=={self.version}", *self.companions)


_ALL = (
    Peer(
        name="libmf",
        version="0.9.2",
        distribution="libmf",
        module="libmf",
        options=("--no-binary", "libmf", NO_CACHE),
        variables={"CFLAGS": AVX, "CXXFLAGS": AVX},
        licence="MIT AND BSD-3-Clause",
        method="P·Q by parallel SGD on blocks with a learning rate a row (AdaGrad), float32",
        start={"lr": 0.1, "reg": 0.05},
        remarks=(
            "a wheel, or a build without these compiler flags, is scalar code and runs at half the speed or less; "
            "simd says what was built, and a processor without AVX cannot run it",
            "its wrapper regularises by L1 unless told otherwise; the adapter sets L2 and leaves L1 at 0",
            "its predict reads the pairs column by column; the adapter multiplies P by Q itself",
            "sweep nr_bins (by default 10, and 2 threads + 1 or more): on MovieLens 1M 40 took 1.5 times as long as 10",
            "no seed, and no bias: λ = reg on P and Q, per rating",
        ),
    ),
    Peer(
        name="cornac",
        version="3.0.1",
        distribution="cornac",
        module="cornac",
        licence="Apache-2.0",
        method="μ + b + c + P·Q by SGD, Cython, float32",
        start={"lr": 0.005, "reg": 0.06},
        remarks=(
            "a seed silently forces one thread",
            "asked for as many threads as there are cores, or more, it takes all cores",
            "it walks through the table as it lies, so the adapter shuffles it once (extra shuffle)",
            "threads share rows without locks: on few items two threads can be slower than one",
        ),
    ),
    Peer(
        name="cmfrec",
        version="3.5.1.post14",
        distribution="cmfrec",
        module="cmfrec",
        companions=("threadpoolctl==3.8.0",),
        options=(NO_CACHE,),
        licence="MIT",
        method="μ + b + c + P·Q by ALS, with Cholesky or conjugate gradients",
        start={"reg": 10.0},
        remarks=(
            "λ is not scaled by anything (scale_lam=False) or by a row's ratings: tune both forms",
            "the mean is subtracted by the adapter: its own centring counted the mean twice with L-BFGS",
            "it does not ask for threadpoolctl, without which it does not import",
        ),
    ),
    Peer(
        name="lenskit",
        version="2025.8.1",
        distribution="lenskit",
        module="lenskit",
        first=TORCH,
        licence="MIT",
        method="damped biases, then P·Q of their residuals by ALS with Cholesky",
        start={"reg": 0.13},
        remarks=(
            "λ is times a row's ratings; biases are fitted once, before the factors",
            "its data set takes seconds to build, which is prepare_s and no part of an epoch",
        ),
    ),
    Peer(
        name="implicit",
        version="0.7.3",
        distribution="implicit",
        module="implicit",
        licence="MIT",
        method="P·Q of implicit data by ALS, with conjugate gradients or Cholesky",
        data="confidence",
        start={"reg": 0.01},
        remarks=(
            "the ratings are its confidences: equal K and non-zeros, another objective; no RMSE",
            "each of its threads calls BLAS, which the adapter sets to one thread as the library asks",
        ),
    ),
    Peer(
        name="buffalo",
        version="2.0.6",
        distribution="buffalo",
        module="buffalo",
        companions=("numpy==1.24.4",),
        licence="Apache-2.0",
        method="P·Q of implicit data by ALS, with conjugate gradients or LDLᵀ",
        data="confidence",
        start={"reg": 0.01},
        remarks=(
            "the ratings are its confidences: equal K and non-zeros, another objective; no RMSE",
            "it keeps 1 % of the ratings back and computes the loss unless told otherwise; both are off",
        ),
    ),
)

PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _ALL}


def find(name: str) -> Peer:
    """The peer of a name.

    Raises:
        ConfigError: an unknown name, with the nearest known one.
    """
    return PEERS[choose("peer", name, PEERS)]


def folder() -> Path:
    """Where the environments lie, one folder a peer: what MF_PEERS names, or ``mf/peers`` of the per-user cache."""
    named = os.environ.get("MF_PEERS")
    return Path(named) if named else cache_dir() / "peers"
