"""Operations and memory traffic of one full-batch iteration (Eq. 27), and the time they take at least (Eq. 28).

A model, written down to be argued with.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One iteration's work for each rating.

    Attributes:
        flops: additions and multiplications.
        bytes: bytes that the kernels read and write, as if no factor row stayed in a cache.
    """

    flops: float
    bytes: float


def per_rating(backend: str, n_factors: int, dtype: str, *, rows: int, n_ratings: int, cells: int = 0) -> Cost:
    """Work of one full-batch iteration divided by the N ratings (Eq. 27).

    Args:
        backend: ``loops``, ``numba``, ``numpy`` or ``torch``; of `bench.engines`, ``add_at`` or ``dense``.
        n_factors: K.
        dtype: ``float32`` (s = 4 bytes a number) or ``float64`` (s = 8).
        rows: m + n, the rows that are updated once an iteration.
        n_ratings: N.
        cells: m·n, which ``dense`` works through whatever N is.

    Operations, the same for every backend but ``dense``, a rating: 2K for p·q, 3 for μ, b, c, 1 for the error, 1 for
    E, 2 for the loss, 2K each for dP and dQ, 2 for db and dc: 6K + 9. A row of P or Q costs 9 operations an entry
    once an iteration (penalty 2, its norm 2, momentum 3, update 2): 9 (K + 1) rows / N.

    Bytes, a rating:
        loops, numba: the index (4) and the rating (s); q_i read, dq_i read and written (3K s), c_i and dc_i (3 s).
            p_u and dp_u stay in registers or L1 over a user's ratings.
        numpy: the same index and rating, twice; the prediction gathers p_u and q_i and writes both and their
            product (2·2K s + 3K s), and the two sparse products read a row and add to a row (2·3K s);
            E and its copies, 6 s.
        torch: 8-byte indices, read four times; forward gathers p_u and q_i (4K s), multiplies (3K s) and sums (K s);
            backward spreads and multiplies again (2·3K s) and adds into dP and dQ (2·3K s); vectors 10 s.
        add_at: 8-byte indices, read eight times; the prediction as numpy's (7K s); each of the two scatters gathers a
            row (2K s), scales it (2K s) and adds it to another (3K s); vectors 10 s.
    dense, a cell: 6K + 9 operations, and 20 s bytes in the passes that `bench.engines.dense_gradient` makes over E,
        one of them each over R and the mask; m·n / N cells a rating.
    Every backend then passes 9 times over each row's K + 1 numbers and their velocity: 9 s (K + 1) rows / N.
    Each is a count of what the code names, not of what a cache spares: measured rates can pass the memory's.
    """
    s = {"float32": 4, "float64": 8}[dtype]
    k = n_factors
    fused = 4 + s + 3 * k * s + 3 * s
    traffic = {
        "add_at": 8 * 8 + s + 21 * k * s + 10 * s,
        "dense": 20 * s * cells / n_ratings,
        "loops": fused,
        "numba": fused,
        "numpy": 2 * (4 + s) + 13 * k * s + 6 * s,
        "torch": 4 * 8 + s + 20 * k * s + 10 * s,
    }[backend]
    once = 9 * (k + 1) * rows / n_ratings
    each = (6 * k + 9) * (cells / n_ratings if backend == "dense" else 1)
    return Cost(each + once, traffic + once * s)  # Eq. 27


def of_kernel(kernel: str, n_factors: int, dtype: str, *, rows: int, n_ratings: int) -> Cost:
    """Work of one call of a Numba kernel divided by the N ratings; gradient and update together are `per_rating`'s.

    Args:
        kernel: ``gradient`` (J, ∇J and penalty), ``update`` (velocity and parameters), ``predict``, ``sgd`` (a pass
            of plain single steps, Eq. 29) or ``als`` (a sweep by Cholesky, Eq. 26).
        n_factors, dtype, rows, n_ratings: as for `per_rating`.

    gradient: a rating as `per_rating` has it; once an iteration, of each row's K + 1 numbers, the sum is written, and
        the penalty reads parameter and sum and writes the gradient: 4 operations and 4 s bytes.
    update: of each number, gradient, velocity and parameter are read and the last two written: 5 operations, 5 s.
    predict: 2K + 3 operations; both indices (2·4), p_u, q_i and the biases (2 (K + 1) s) read, r̂ written (s).
    sgd: 2K for p·q, 4 for the error, 3 for ℓ and E, 3 for each of the 2 (K + 1) numbers and 2 for the biases' pulls;
        both places (2·2) and the rating (s), 2 (K + 1) numbers read and written, two pulls read. Once a pass, the
        penalty reads each row's K + 1 numbers, 2 operations each.
    als: a rating is met from both sides: each time K (K + 1) operations for one triangle of q qᵀ, 4K for q times
        what is left and times 1, and once 2K for r̂; its index (4), itself (s) and the partner's K + 1 numbers read. A
        row costs K³/3 + 4K² for the factor and its two solutions, and is written.
    """
    s = {"float32": 4, "float64": 8}[dtype]
    k = n_factors
    once = (k + 1) * rows / n_ratings
    solved = (k**3 / 3 + 4 * k * k) * rows / n_ratings
    return {
        "als": Cost(2 * (k * (k + 1) + 4 * k) + 2 * k + solved, 2 * (4 + s + (k + 1) * s) + once * s),
        "gradient": Cost(6 * k + 9 + 4 * once, 4 + s + 3 * k * s + 3 * s + 4 * once * s),
        "update": Cost(5 * once, 5 * once * s),
        "predict": Cost(2 * k + 3, 8 + 2 * (k + 1) * s + s),
        "sgd": Cost(2 * k + 7 + 6 * (k + 1) + 2 + 2 * once, 4 + s + 4 * (k + 1) * s + 2 * s + once * s),
    }[kernel]


def least_seconds(cost: Cost, n_ratings: int, flops_per_second: float, bytes_per_second: float) -> float:
    """Seconds of one iteration on a machine that is perfect in both: the slower of its two limits (Eq. 28)."""
    return n_ratings * max(cost.flops / flops_per_second, cost.bytes / bytes_per_second)  # Eq. 28


@dataclass(frozen=True)
class Traffic:
    """Bytes of one full-batch iteration on a GPU.

    Attributes:
        cache: through the second-level cache.
        memory: between that and the memory.
    """

    cache: float
    memory: float

    def least_seconds(self, cache_rate: float, memory_rate: float) -> float:
        """Seconds at these bytes/s: the slower of the two, which work at the same time (Eq. 28)."""
        return max(self.cache / cache_rate, self.memory / memory_rate)  # Eq. 28


def on_gpu(n_factors: int, *, n_users: int, n_items: int, n_ratings: int, cache_bytes: int, stored: int = 4) -> Traffic:
    """The least that a full-batch iteration in float32 moves (Eq. 27) where rows come from a cache of `cache_bytes`.

    Taken is the form that moves least: the ratings pass once by user and once by item, so that the row of the side
    that they are sorted by, and its sum, stay in registers, and nothing is added to the same place twice. With s = 4,
    and factors gathered from copies of t = `stored` bytes a number:

    By user, a rating: the item's index (4), the rating (s), q_i and c_i read (K t + s), e written (s).
    By item: the user's index and where its e is (4 + 4), e read (s), p_u read (K t).
    Once an iteration, 9 passes over each row's K + 1 numbers, as in `per_rating`, and where t < s the copy: K (s + t).

    From the memory come indices, ratings and e, and the once-an-iteration passes, unless all of that and the velocities
    fit into the cache, where the iteration before left them; and of rows gathered from a table that is larger than the
    cache the share that it cannot hold.
    """
    s = 4
    row = n_factors * stored + s
    once = (n_users + n_items) * (9 * s * (n_factors + 1) + (n_factors * (s + stored) if stored < s else 0))
    kept = (n_users + n_items) * 3 * s * (n_factors + 1)
    stream = n_ratings * (12 + 3 * s)
    gathers = ((n_items * row, n_ratings * row), (n_users * row, n_ratings * (row - s)))
    missed = sum(moved * (1 - cache_bytes / table) for table, moved in gathers if table > cache_bytes)
    through = stream + sum(moved for _, moved in gathers) + once
    resident = stream + kept <= cache_bytes
    return Traffic(through, 0.0 if resident else stream + once + missed)  # Eq. 27


@dataclass(frozen=True)
class Spread:
    """What one of R processes of `mf_torch.distributed` holds and does in an iteration.

    Attributes:
        held: bytes of the device's memory.
        sent: bytes that it sends, and receives.
        passed: bytes that it reads and writes in its own memory, as if no row of Q stayed in a cache.
    """

    held: float
    sent: float
    passed: float


def spread(n_users: float, n_items: float, n_ratings: float, n_factors: int, processes: int, *, ring: bool) -> Spread:
    """A float32 fit (s = 4) of m users, n items and N ratings on R processes; ``ring`` is one row of Q on one process.

    Held: a rating 32 bytes (its user, its item twice, its partner and place in the order by items, 4 each, the rating,
        its error and that in the other order, s each); of the m/R users' rows of K + 1 numbers, parameter, velocity,
        gradient and the copy that a divergence goes back to, with the ring a second gradient, of one block; 4 bytes
        for where a row begins, with the ring once for each block; of Q as many copies of n rows as of the users',
        with the ring nine of n/R (those four, two blocks that go round with two of sums, and what is pulled).
    Sent: 2 (R-1)/R n (K + 1) s: an all-reduce of ∇Q and ∇c; as much by the ring, half of it rows, half sums.
    Passed: a rating 3 K s for q_i twice and p_u once, and 44 for what is held of it and its three indices and numbers
        met again; nine passes over the rows that are moved; with the ring three over ∇P for each block.
    """
    s, row = 4, 4 * (n_factors + 1)
    m, n, ratings = n_users / processes, n_items / processes, n_ratings / processes
    if ring:
        held = 32 * ratings + 5 * m * row + 4 * m * processes + 9 * n * row
        passed = 9 * (m + n) * row + 3 * m * row * processes
    else:
        held = 32 * ratings + 4 * m * (row + 1) + 4 * n_items * row
        passed = 9 * (m + n_items) * row
    sent = 2 * (processes - 1) / processes * n_items * row
    return Spread(held, sent, passed + ratings * (3 * n_factors * s + 44))
