"""Rows of K numbers in vector registers, as LLVM sees them: the twins of the loops in `vector`.

LLVM splits a vector that the machine has no registers for, so that one source serves AVX-512, AVX2, SSE2 and NEON.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.core.typing.templates import signature as signature_of
from numba.extending import intrinsic, models, register_model

_INT32 = ir.IntType(32)

AT_ONCE = 2
"""Vectors of each of two rows that `exchange` reads before it writes: AVX2's 16 registers do not hold whole rows."""


@cache
def vector_bytes() -> int:
    """Bytes of a vector: of the widest registers that the target has, and of AVX2's where it has narrower ones."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 64 if "+avx512f" in features else 32


def pack(fingerprint: int, n_factors: int) -> int:
    """The form of rows of K numbers: fingerprint, bytes of a vector (12 bits) and K (12 bits) in one number."""
    return fingerprint << 24 | vector_bytes() << 12 | n_factors


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


def call(builder, name, result, arguments):
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


def splat(builder, vector, number):
    """The number in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, number, _INT32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT32, vector.count), [0] * vector.count))


def multiply_add(builder, row, a, b, c):
    return call(builder, f"llvm.fmuladd.{row.suffix}", row.vector, [a, b, c])


def sum_of_lanes(builder, vector):
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


def _read(builder, row, pointer, last):
    """A vector from memory; the row's last one with zeros in the lanes that are not of the row."""
    if not last or row.mask is None:
        return builder.load(pointer, align=row.size)
    given = [pointer, _INT32(row.size), row.mask, ir.Constant(row.vector, [0.0] * row.lanes)]
    return call(builder, f"llvm.masked.load.{row.suffix}.p0", row.vector, given)


def _write(builder, row, pointer, vector, last):
    """A vector to memory; of the row's last one the lanes alone that are of the row."""
    if not last or row.mask is None:
        builder.store(vector, pointer, align=row.size)
    else:
        given = [vector, pointer, _INT32(row.size), row.mask]
        call(builder, f"llvm.masked.store.{row.suffix}.p0", ir.VoidType(), given)


@intrinsic(prefer_literal=True)
def load(typing_context, table, at, form):
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        pointers = _pointers(context, builder, row, signature, arguments)
        return _row(builder, row, [_read(builder, row, pointer, pointer is pointers[-1]) for pointer in pointers])

    return row(table, at, form), emit


@intrinsic
def store(typing_context, table, at, row):
    def emit(context, builder, signature, arguments):
        pointers = _pointers(context, builder, row, signature, arguments)
        for pointer, vector in zip(pointers, _vectors(builder, row, arguments[2]), strict=True):
            _write(builder, row, pointer, vector, pointer is pointers[-1])
        return context.get_dummy_value()

    return types.void(table, at, row), emit


@intrinsic(prefer_literal=True)
def exchange(typing_context, P, u, keep_p, Q, i, keep_q, factor, form):
    row = Row(P.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        def number(k):
            return splat(builder, row.vector, context.cast(builder, arguments[k], signature.args[k], row.dtype))

        def places(k):
            return _pointers(context, builder, row, signature_of(types.void, *signature.args[k:]), arguments[k:])

        kept_p, kept_q, moved = number(2), number(5), number(6)
        pairs = list(zip(places(0), places(3), strict=True))
        for begin in range(0, row.n_vectors, AT_ONCE):
            some = pairs[begin : begin + AT_ONCE]
            old = [[_read(builder, row, at, pair is pairs[-1]) for at in pair] for pair in some]
            for pair, (p, q) in zip(some, old, strict=True):
                moved_p = multiply_add(builder, row, moved, q, builder.fmul(kept_p, p))
                moved_q = multiply_add(builder, row, moved, p, builder.fmul(kept_q, q))
                _write(builder, row, pair[0], moved_p, pair is pairs[-1])
                _write(builder, row, pair[1], moved_q, pair is pairs[-1])
        return context.get_dummy_value()

    return types.void(P, u, keep_p, Q, i, keep_q, factor, form), emit


@intrinsic
def dot(typing_context, a, b):
    def emit(context, builder, signature, arguments):
        pairs = list(zip(*(_vectors(builder, a, x) for x in arguments), strict=True))
        # One sum waits for each of its additions; where they are many, two wait half as long.
        n_sums = 2 if len(pairs) > 4 else 1
        sums = [builder.fmul(*pair) for pair in pairs[:n_sums]]
        for k, (x, y) in enumerate(pairs[n_sums:]):
            sums[k % n_sums] = multiply_add(builder, a, x, y, sums[k % n_sums])
        return sum_of_lanes(builder, builder.fadd(*sums) if n_sums == 2 else sums[0])

    return a.dtype(a, b), emit


@intrinsic
def add(typing_context, row, scale, other):
    def emit(context, builder, signature, arguments):
        scales = splat(builder, row.vector, context.cast(builder, arguments[1], signature.args[1], row.dtype))
        pairs = zip(_vectors(builder, row, arguments[2]), _vectors(builder, row, arguments[0]), strict=True)
        return _row(builder, row, [multiply_add(builder, row, scales, x, y) for x, y in pairs])

    return row(row, scale, other), emit


@intrinsic
def scale(typing_context, row, number):
    def emit(context, builder, signature, arguments):
        factor = splat(builder, row.vector, context.cast(builder, arguments[1], signature.args[1], row.dtype))
        return _row(builder, row, [builder.fmul(factor, x) for x in _vectors(builder, row, arguments[0])])

    return row(row, number), emit


@intrinsic
def add_squares(typing_context, row, other):
    def emit(context, builder, signature, arguments):
        pairs = zip(*(_vectors(builder, row, x) for x in arguments), strict=True)
        return _row(builder, row, [multiply_add(builder, row, y, y, x) for x, y in pairs])

    return row(row, other), emit


@intrinsic
def over_root(typing_context, row, other, floor):
    def emit(context, builder, signature, arguments):
        least = splat(builder, row.vector, context.cast(builder, arguments[2], signature.args[2], row.dtype))
        pairs = zip(*(_vectors(builder, row, x) for x in arguments[:2]), strict=True)
        roots = ((x, call(builder, f"llvm.sqrt.{row.suffix}", row.vector, [y])) for x, y in pairs)
        return _row(builder, row, [builder.fdiv(x, builder.fadd(root, least)) for x, root in roots])

    return row(row, other, floor), emit


@intrinsic(prefer_literal=True)
def prefetch(typing_context, table, at, form):
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        pointers = _pointers(context, builder, row, signature, arguments)
        # One of each cache line; to be written, and to be kept in the nearest cache.
        for pointer in pointers[:: max(1, 64 // (row.lanes * row.size))]:
            given = [builder.bitcast(pointer, ir.IntType(8).as_pointer()), _INT32(1), _INT32(3), _INT32(1)]
            call(builder, "llvm.prefetch.p0", ir.VoidType(), given)
        return context.get_dummy_value()

    return types.void(table, at, form), emit
