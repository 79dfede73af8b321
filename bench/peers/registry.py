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
        data: ``ratings``, which it predicts, or ``confidence``: it ranks, so that it is timed, or its lists are scored.
        seeding: what a seed does: it is ``honoured``, it forces ``one thread``, or there is ``none``.
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
    seeding: str = "honoured"
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
        seeding="none",
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
        seeding="one thread",
        start={"lr": 0.005, "reg": 0.06},
        remarks=(
            "a seed silently forces one thread",
            "asked for as many threads as there are cores, or more, it takes all cores",
            "it walks through the table as it lies, so the adapter shuffles it once (extra shuffle)",
            "threads share rows without locks: on few items two threads can be slower than one",
            "its other back end needs torch, which it does not bring: a peer of its own, cornac-torch",
        ),
    ),
    Peer(
        name="cornac-torch",
        version="3.0.1",
        distribution="cornac",
        module="cornac",
        first=TORCH,
        licence="Apache-2.0",
        method="μ + b + c + P·Q by PyTorch on mini-batches of 256, SGD without momentum, float32",
        start={"lr": 0.005, "reg": 0.02},
        remarks=(
            "the squared errors of a batch are summed, not averaged, so η is of a rating and suits any batch size",
            "λ is torch's weight decay, which every step adds to the gradient of every row, in the batch or not: the "
            "best one depends on the batch (extra batch_size)",
            "other optimisers by extra optimizer; a fit cannot be taken up again, so each number of epochs is one",
            "it takes a GPU where it sees one; the adapter hides it",
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
        method="μ + b + c + P·Q by ALS, with Cholesky or conjugate gradients, or by L-BFGS",
        start={"reg": 10.0},
        remarks=(
            "λ is not scaled by anything (scale_lam=False) or by a row's ratings: tune both forms",
            "the mean is subtracted by the adapter: its own centring counted the mean twice with L-BFGS",
            "of L-BFGS (extra method) an epoch is an iteration, and λ is not scaled",
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
        method="damped biases, then P·Q of their residuals by ALS with Cholesky, or by SGD factor by factor",
        start={"reg": 0.13},
        remarks=(
            "λ is times a row's ratings; biases are fitted once, before the factors",
            "of FunkSVD (extra method) an epoch is a pass for each of the K factors; λ is per rating, about .015",
            "its data set takes seconds to build, which is prepare_s and no part of an epoch",
        ),
    ),
    Peer(
        name="implicit",
        version="0.7.3",
        distribution="implicit",
        module="implicit",
        licence="MIT",
        method="P·Q of implicit data by ALS, with conjugate gradients or Cholesky, or c + P·Q by BPR",
        data="confidence",
        start={"reg": 0.01},
        remarks=(
            "the ratings are its confidences: equal K and non-zeros, another objective; no RMSE",
            "its alpha is 1 + α of Eq. 45, and its λ is Nλ of Eq. 47",
            "of BPR (extra method) an epoch draws as many pairs as there are ratings, whose size it ignores; threads "
            "share rows without locks, so that a seed alone does not repeat a fit",
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
    Peer(
        name="surprise",
        version="1.1.5",
        distribution="scikit-surprise",
        module="surprise",
        companions=("numpy==2.4.6", "scipy==1.17.1"),
        licence="BSD-3-Clause",
        method="μ + b + c + P·Q by SGD (SVD), with or without μ, b and c, or SVD++, Cython, float64",
        start={"lr": 0.01, "reg": 0.1},
        remarks=(
            "one thread, whatever it is asked for",
            "an id asked for as another type than it was given as is unknown, and its prediction the mean: the adapter "
            "looks its own ids up once and multiplies the parameters itself",
            "it takes the ratings user by user, in the same order every epoch, from Python's lists of tuples",
            "an epoch of SVD++ costs the square of a user's ratings",
        ),
    ),
    Peer(
        name="myfm",
        version="0.4.0",
        distribution="myfm",
        module="myfm",
        companions=("numpy==2.4.6", "scipy==1.17.1"),
        licence="MIT",
        method="w₀ + w_u + w_i + v_u·v_i by Gibbs sampling, a Bayesian factorisation machine, float64",
        start={"reg": 1.0},
        remarks=(
            "one thread, whatever it is asked for",
            "an epoch is a sweep; the posterior mean is predicted, of the samples after the first 5 (extra burn_in)",
            "it samples its penalties: reg is the prior precision of w₀ alone, and there is no learning rate",
            "the adapter keeps every sample: 8 (m + n)(K + 1) bytes an epoch",
        ),
    ),
    Peer(
        name="torch-loop",
        version="2.13.0",
        distribution="torch",
        module="torch",
        companions=("numpy==2.4.6",),
        licence="BSD-3-Clause",
        method="μ + b + c + P·Q by Adam on shuffled mini-batches of 1,024, as tutorials write it, float32",
        start={"lr": 0.005, "reg": 1e-4},
        remarks=(
            "no library: a loop of embeddings, MSE and Adam, written in its adapter",
            "λ is Adam's weight decay, which every step adds to the gradient of every row, in the batch or not: the "
            "best one depends on the batch (extra batch_size)",
            "batches are slices of a permutation; extra loader takes a DataLoader, which collates rating by rating",
        ),
    ),
    Peer(
        name="post",
        version="1.17.1",
        distribution="scipy",
        module="scipy",
        companions=("numpy==2.4.6",),
        licence="BSD-3-Clause",
        method="P·Q by gradient descent with momentum on all ratings at once, SciPy's sparse products, float64",
        start={"lr": 30.0, "reg": 1e-4},
        remarks=(
            "no library: the way of the post that this project began with, written anew in its adapter",
            "an epoch is 10 steps (extra steps); each builds a sparse matrix of all predictions",
            "η is of a mean over all ratings: a few tens, and what is right for one K or data set diverges on another",
            "λ weighs every row alike, whatever its ratings; it has no biases, and starts uniform in [0, 11/K)",
            "one thread: SciPy's sparse products have no more",
        ),
    ),
    Peer(
        name="pyspark",
        version="4.3.0",
        distribution="pyspark",
        module="pyspark",
        companions=("numpy==2.4.6", "pandas==2.3.3", "pyarrow==26.0.1"),
        licence="Apache-2.0",
        method="P·Q by ALS with Cholesky in a local Java process, float32",
        start={"reg": 0.1},
        remarks=(
            "it needs Java 17 or later, which pip does not install; without it it does not run",
            "λ is times a row's ratings; no mean and no biases",
            "starting Java and handing it the ratings is prepare_s; its first fits are slow, until Java has compiled",
            "users and items are dealt to as many blocks as there are threads (extra blocks; by default Spark has 10)",
        ),
    ),
    Peer(
        name="fastai",
        version="2.8.12",
        distribution="fastai",
        module="fastai",
        companions=(*TORCH, "torchvision==0.28.0"),
        first=TORCH,
        licence="Apache-2.0",
        method="sigmoid of b + c + P·Q, to the rating scale, by Adam with one cycle of its learning rate, float32",
        start={"lr": 0.005, "reg": 0.1},
        remarks=(
            "left alone, pip takes the newest torchvision, and for it another torch with all of CUDA: 6 GiB",
            "λ is a weight decay apart from Adam's gradient; lr is the peak of the cycle, which spans all epochs, so "
            "another number of epochs is another fit",
            "batches of 64 as by default (extra batch_size): a thousand Python steps for 64,000 ratings",
            "predictions stay within half a rating of the scale's ends (extra y_range)",
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
