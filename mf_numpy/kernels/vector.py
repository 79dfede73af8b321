"""Rows of K numbers held in vector registers: the few operations that the kernels are written in.

A kernel closes over one whole number, its *form*, which `form` makes of K: Numba compiles the kernel anew for every
form, and finds it in its cache on disk by that number. With the form `LOOPS` the same kernel is plain loops over
NumPy rows of any length. LLVM splits a vector that the machine has no registers for, so that one source serves
AVX-512, AVX2, SSE2 and NEON.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

from mf_numpy.errors import choose

LOOPS = -1
"""The form of plain loops, for any K."""

MAX_FACTORS = 512
"""Largest K whose rows are unrolled; more would compile for minutes and spill every register."""

fingerprint = zlib.crc32(Path(__file__).read_bytes())
"""In every form, so that a kernel on disk which was compiled with other operations is not taken for one with these."""

_INT32 = ir.IntType(32)

# Sums may be reassociated so that LLVM can vectorise plain loops; infinities and NaN keep their meaning.
FAST = {"reassoc", "contract", "nsz"}


def form(n_factors: int) -> int:
    """The form of kernels for rows of K numbers: vectors, or `LOOPS` for K above `MAX_FACTORS`.

    With ``loops`` in the environment variable MF_KERNELS it is `LOOPS` for every K.

    Raises:
        ConfigError: MF_KERNELS is neither ``vectors`` nor ``loops``.
    """
    asked = choose("MF_KERNELS", os.environ.get("MF_KERNELS", "vectors"), ("vectors", "loops"))
    if asked == "loops" or n_factors > MAX_FACTORS:
        return LOOPS
    return fingerprint << 24 | _vector_bytes() << 12 | n_factors


def _vector_bytes() -> int:
    """Bytes of a vector: of the widest registers that the target has, and of AVX2's where it has narrower ones."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 64 if "+avx512f" in features else 32


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """An array that begins on a cache line: rows of whole lines are then read without crossing one."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    begin = -room.ctypes.data % 64
    out: np.ndarray[Any, np.dtype[Any]] = room[begin : begin + size].view(dtype).reshape(shape)
    return out


def load(table: Any, at: Any, form: int) -> Any:
    """Row `at` of a (rows, K) table."""
    return table[at]


def store(table: Any, at: Any, row: Any) -> None:
    """Write a row back."""
    table[at] = row


def zeros(table: Any, form: int) -> Any:
    """A row of K zeros, in the precision of the table."""
    return np.zeros(table.shape[1], table.dtype)


def dot(a: Any, b: Any) -> Any:
    """a·b, in the precision of the rows."""
    return a @ b


def add(row: Any, scale: Any, other: Any) -> Any:
    """row + scale·other. With loops `row` itself is overwritten: see `copy`."""
    return row + scale * other


def scale(row: Any, number: Any) -> Any:
    """number·row. With loops `row` itself is overwritten."""
    return number * row


def add_squares(row: Any, other: Any) -> Any:
    """row + other², entry by entry. With loops `row` itself is overwritten."""
    return row + other * other


def over_root(row: Any, other: Any, floor: Any) -> Any:
    """row / (√other + floor), entry by entry. With loops `row` itself is overwritten."""
    return row / (np.sqrt(other) + floor)


def prefetch(table: Any, at: Any, form: int) -> None:
    """Ask for a row that will be read and written soon."""


def copy(row: Any) -> Any:
    """A row that stays what it is when the one it was loaded from is overwritten."""
    return row.copy()


class Row(types.Type):
    """Numba's type of a row: `length` numbers in vectors of `lanes` each, the last one filled up with zeros."""

    def __init__(self, dtype: Any, form: int) -> None:
        self.dtype, self.length, self.size = dtype, form & 0xFFF, dtype.bitwidth // 8
        self.lanes = (form >> 12 & 0xFFF) // self.size
        self.n_vectors = -(-self.length // self.lanes)
        super().__init__(name=f"Row({dtype}, {form:#x})")

    @property
    def vector(self) -> ir.VectorType:
        """LLVM's type of one vector."""
        return ir.VectorType(ir.FloatType() if self.size == 4 else ir.DoubleType(), self.lanes)

    @property
    def suffix(self) -> str:
        """How LLVM's names for operations on such vectors end."""
        return f"v{self.lanes}f{8 * self.size}"

    @property
    def mask(self) -> ir.Constant | None:
        """Which lanes of the last vector are numbers of the row; None where all are."""
        rest = self.length % self.lanes
        lanes = [lane < rest for lane in range(self.lanes)]
        return ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), lanes) if rest else None


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    """An array of vectors, which LLVM keeps in registers as long as there are enough of them."""

    def __init__(self, manager, row):
        super().__init__(manager, row, ir.ArrayType(row.vector, row.n_vectors))


def _vectors(builder, row, value):
    return [builder.extract_value(value, k) for k in range(row.n_vectors)]


def _row(builder, row, vectors):
    out = ir.Constant(ir.ArrayType(row.vector, row.n_vectors), ir.Undefined)
    for k, vector in enumerate(vectors):
        out = builder.insert_value(out, vector, k)
    return out


def _call(builder, name, result, arguments):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _pointers(context, builder, row, signature, arguments):
    """Where each vector of row `at` of the table lies; `signature` and `arguments` begin with table and `at`."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    stride = cgutils.unpack_tuple(builder, array.strides)[0]
    at = context.cast(builder, arguments[1], signature.args[1], types.intp)
    first = cgutils.pointer_add(builder, array.data, builder.mul(at, stride))
    offsets = [context.get_constant(types.intp, k * row.lanes * row.size) for k in range(row.n_vectors)]
    return [builder.bitcast(cgutils.pointer_add(builder, first, o), row.vector.as_pointer()) for o in offsets]


def _splat(builder, vector, number):
    """The number in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, number, _INT32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT32, vector.count), [0] * vector.count))


def _multiply_add(builder, row, a, b, c):
    return _call(builder, f"llvm.fmuladd.{row.suffix}", row.vector, [a, b, c])


def _sum_of_lanes(builder, vector):
    lanes = vector.type.count
    while lanes > 1:
        half = lanes // 2
        nothing = ir.Constant(vector.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(vector, nothing, ir.Constant(ir.VectorType(_INT32, half), list(part)))
            for part in (range(half), range(half, lanes))
        )
        vector, lanes = builder.fadd(low, high), half
    return builder.extract_element(vector, _INT32(0))


@intrinsic(prefer_literal=True)
def _load(typing_context, table, at, form):
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        *whole, last = _pointers(context, builder, row, signature, arguments)
        vectors = [builder.load(pointer, align=row.size) for pointer in whole]
        if row.mask is None:
            vectors.append(builder.load(last, align=row.size))
        else:
            given = [last, _INT32(row.size), row.mask, ir.Constant(row.vector, [0.0] * row.lanes)]
            vectors.append(_call(builder, f"llvm.masked.load.{row.suffix}.p0", row.vector, given))
        return _row(builder, row, vectors)

    return row(table, at, form), emit


@intrinsic
def _store(typing_context, table, at, row):
    def emit(context, builder, signature, arguments):
        *whole, last = _pointers(context, builder, row, signature, arguments)
        vectors = _vectors(builder, row, arguments[2])
        for vector, pointer in zip(vectors[:-1], whole, strict=True):
            builder.store(vector, pointer, align=row.size)
        if row.mask is None:
            builder.store(vectors[-1], last, align=row.size)
        else:
            given = [vectors[-1], last, _INT32(row.size), row.mask]
            _call(builder, f"llvm.masked.store.{row.suffix}.p0", ir.VoidType(), given)
        return context.get_dummy_value()

    return types.void(table, at, row), emit


@intrinsic(prefer_literal=True)
def _zeros(typing_context, table, form):
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        return _row(builder, row, [ir.Constant(row.vector, [0.0] * row.lanes)] * row.n_vectors)

    return row(table, form), emit


@intrinsic
def _dot(typing_context, a, b):
    def emit(context, builder, signature, arguments):
        first, *others = zip(*(_vectors(builder, a, x) for x in arguments), strict=True)
        total = builder.fmul(*first)
        for x, y in others:
            total = _multiply_add(builder, a, x, y, total)
        return _sum_of_lanes(builder, total)

    return a.dtype(a, b), emit


@intrinsic
def _add(typing_context, row, scale, other):
    def emit(context, builder, signature, arguments):
        scales = _splat(builder, row.vector, context.cast(builder, arguments[1], signature.args[1], row.dtype))
        pairs = zip(_vectors(builder, row, arguments[2]), _vectors(builder, row, arguments[0]), strict=True)
        return _row(builder, row, [_multiply_add(builder, row, scales, x, y) for x, y in pairs])

    return row(row, scale, other), emit


@intrinsic
def _scale(typing_context, row, number):
    def emit(context, builder, signature, arguments):
        factor = _splat(builder, row.vector, context.cast(builder, arguments[1], signature.args[1], row.dtype))
        return _row(builder, row, [builder.fmul(factor, x) for x in _vectors(builder, row, arguments[0])])

    return row(row, number), emit


@intrinsic
def _add_squares(typing_context, row, other):
    def emit(context, builder, signature, arguments):
        pairs = zip(*(_vectors(builder, row, x) for x in arguments), strict=True)
        return _row(builder, row, [_multiply_add(builder, row, y, y, x) for x, y in pairs])

    return row(row, other), emit


@intrinsic
def _over_root(typing_context, row, other, floor):
    def emit(context, builder, signature, arguments):
        least = _splat(builder, row.vector, context.cast(builder, arguments[2], signature.args[2], row.dtype))
        pairs = zip(*(_vectors(builder, row, x) for x in arguments[:2]), strict=True)
        roots = ((x, _call(builder, f"llvm.sqrt.{row.suffix}", row.vector, [y])) for x, y in pairs)
        return _row(builder, row, [builder.fdiv(x, builder.fadd(root, least)) for x, root in roots])

    return row(row, other, floor), emit


@intrinsic(prefer_literal=True)
def _prefetch(typing_context, table, at, form):
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        pointers = _pointers(context, builder, row, signature, arguments)
        # One of each cache line; to be written, and to be kept in the nearest cache.
        for pointer in pointers[:: max(1, 64 // (row.lanes * row.size))]:
            given = [builder.bitcast(pointer, ir.IntType(8).as_pointer()), _INT32(1), _INT32(3), _INT32(1)]
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), given)
        return context.get_dummy_value()

    return types.void(table, at, form), emit


def _overloaded(function: Callable[..., Any], **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    made: Callable[..., Any] = overload(function, jit_options={"fastmath": FAST}, **settings)
    return made


@_overloaded(load, prefer_literal=True)
def _load_of(table, at, form):
    if form.literal_value == LOOPS:
        return lambda table, at, form: table[at]
    return lambda table, at, form: _load(table, at, form)


@_overloaded(zeros, prefer_literal=True)
def _zeros_of(table, form):
    if form.literal_value == LOOPS:
        return lambda table, form: np.zeros(table.shape[1], table.dtype)
    return lambda table, form: _zeros(table, form)


@_overloaded(store)
def _store_of(table, at, row):
    if isinstance(row, Row):
        return lambda table, at, row: _store(table, at, row)

    def loops(table, at, row):
        for f in range(len(row)):
            table[at, f] = row[f]

    return loops


@_overloaded(dot)
def _dot_of(a, b):
    if isinstance(a, Row):
        return lambda a, b: _dot(a, b)

    def loops(a, b):
        total = a[0] * b[0]
        for f in range(1, len(a)):
            total += a[f] * b[f]
        return total

    return loops


@_overloaded(add)
def _add_of(row, scale, other):
    if isinstance(row, Row):
        return lambda row, scale, other: _add(row, scale, other)

    def loops(row, scale, other):
        for f in range(len(row)):
            row[f] += scale * other[f]
        return row

    return loops


@_overloaded(copy)
def _copy_of(row):
    return (lambda row: row) if isinstance(row, Row) else (lambda row: row.copy())


@_overloaded(scale)
def _scale_of(row, number):
    if isinstance(row, Row):
        return lambda row, number: _scale(row, number)

    def loops(row, number):
        for f in range(len(row)):
            row[f] *= number
        return row

    return loops


@_overloaded(add_squares)
def _add_squares_of(row, other):
    if isinstance(row, Row):
        return lambda row, other: _add_squares(row, other)

    def loops(row, other):
        for f in range(len(row)):
            row[f] += other[f] * other[f]
        return row

    return loops


@_overloaded(over_root)
def _over_root_of(row, other, floor):
    if isinstance(row, Row):
        return lambda row, other, floor: _over_root(row, other, floor)

    def loops(row, other, floor):
        for f in range(len(row)):
            row[f] /= np.sqrt(other[f]) + floor
        return row

    return loops


@_overloaded(prefetch, prefer_literal=True)
def _prefetch_of(table, at, form):
    if form.literal_value == LOOPS:
        return lambda table, at, form: None
    return lambda table, at, form: _prefetch(table, at, form)
