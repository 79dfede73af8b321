"""Tiles of a small dense matrix in vector registers, as LLVM sees them: what `normal` is written in.

A tile is R rows of one to three vectors; R divides the lanes of a vector, and as many registers are left for the
operands. Tables are C-ordered, and their rows are whole vectors long.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from mf_numpy.kernels import lanes
from mf_numpy.kernels.lanes import Row

_INT32 = ir.IntType(32)


@register_jitable
def lanes_of(form: int, size: int) -> int:
    """Numbers of `size` bytes in one vector."""
    return (form >> 12 & 0xFFF) // size


@register_jitable
def rows_of(form: int) -> int:
    """R: 8 where there are 32 registers, else 4."""
    return 8 if (form >> 12 & 0xFFF) == 64 else 4


class _Table:
    """An array argument of an intrinsic: where each of its numbers lies."""

    def __init__(self, context, builder, kind, value):
        array = context.make_array(kind)(context, builder, value)
        self.context, self.builder, self.data, self.size = context, builder, array.data, kind.dtype.bitwidth // 8
        self.stride = cgutils.unpack_tuple(builder, array.strides)[0]

    def row(self, at):
        return cgutils.pointer_add(self.builder, self.data, self.builder.mul(at, self.stride))

    def at(self, pointer, column, vector=None):
        """The number, or the vector that begins with it, `column` numbers behind `pointer`."""
        kind = self.data.type if vector is None else vector.as_pointer()
        offset = self.builder.mul(column, self.context.get_constant(types.intp, self.size))
        return self.builder.bitcast(cgutils.pointer_add(self.builder, pointer, offset), kind)


class _Tile:
    """Rows x vectors of accumulators; LLVM keeps them in registers."""

    def __init__(self, context, builder, row, n_rows, n_vectors):
        self.context, self.builder, self.row = context, builder, row
        self.cells = [[cgutils.alloca_once(builder, row.vector) for _ in range(n_vectors)] for _ in range(n_rows)]
        self.offsets = [context.get_constant(types.intp, v * row.lanes) for v in range(n_vectors)]

    def each(self):
        for r, cells in enumerate(self.cells):
            for v, cell in enumerate(cells):
                yield r, v, cell

    def clear(self):
        zero = ir.Constant(self.row.vector, [0.0] * self.row.lanes)
        for _, _, cell in self.each():
            self.builder.store(zero, cell)

    def load(self, table, first_row, column):
        for r, v, cell in self.each():
            self.builder.store(
                self.builder.load(self._place(table, first_row, column, r, v), align=self.row.size), cell
            )

    def add_to(self, table, first_row, column):
        for r, v, cell in self.each():
            place = self._place(table, first_row, column, r, v)
            total = self.builder.fadd(self.builder.load(place, align=self.row.size), self.builder.load(cell))
            self.builder.store(total, place, align=self.row.size)

    def _place(self, table, first_row, column, r, v):
        pointer = table.row(self.builder.add(first_row, self.context.get_constant(types.intp, r)))
        return table.at(pointer, self.builder.add(column, self.offsets[v]), self.row.vector)

    def add_products(self, j, table, column, factors, first_factor, minus=False, out=None):
        """cell[r][v] += or -= factors[j, first_factor + r] · table[j, column + v]."""
        builder, row = self.builder, self.row
        vectors = [
            builder.load(table.at(table.row(j), builder.add(column, o), row.vector), align=row.size)
            for o in self.offsets
        ]
        pointer = factors.row(j)
        for r, cells in enumerate(self.cells):
            at = builder.add(first_factor, self.context.get_constant(types.intp, r))
            factor = builder.load(factors.at(pointer, at))
            factor = lanes.splat(builder, row.vector, builder.fneg(factor) if minus else factor)
            for vector, cell in zip(vectors, cells, strict=True):
                builder.store(lanes.multiply_add(builder, row, factor, vector, builder.load(cell)), cell)


def _minus_product(builder, row, a, b, c):
    """c - a·b."""
    return lanes.multiply_add(builder, row, builder.fneg(a), b, c)


def _lane(builder, vector, lane):
    """One lane in all."""
    kind = ir.Constant(ir.VectorType(_INT32, vector.type.count), [lane] * vector.type.count)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), kind)


def _loop(builder, stop, start=0, step=1):
    kind = stop.type
    return cgutils.for_range_slice(builder, ir.Constant(kind, start), stop, ir.Constant(kind, step), kind)


def _index(context, builder, signature, arguments, *which):
    return [context.cast(builder, arguments[k], signature.args[k], types.intp) for k in which]


def _emit_products(row, n_rows, n_vectors, sets):
    """out[r0 + r, c0 + v] += Σ_{j < count} factors[j, f0 + r] · table[j, c0 + v], `sets` numbers j at a time."""

    def emit(context, builder, signature, arguments):
        out, table, factors = (_Table(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 4))
        r0, c0, f0, count = _index(context, builder, signature, arguments, 1, 3, 5, 6)
        tiles = [_Tile(context, builder, row, n_rows, n_vectors) for _ in range(sets)]
        for tile in tiles:
            tile.clear()
        with _loop(builder, count, step=sets) as (j, _):
            for k, tile in enumerate(tiles):
                tile.add_products(builder.add(j, context.get_constant(types.intp, k)), table, c0, factors, f0)
        first, *others = tiles
        for other in others:
            for (_, _, a), (_, _, b) in zip(first.each(), other.each(), strict=True):
                builder.store(builder.fadd(builder.load(a), builder.load(b)), a)
        first.add_to(out, r0, c0)
        return context.get_dummy_value()

    return emit


@intrinsic(prefer_literal=True)
def add_products(typing_context, out, r0, table, c0, factors, f0, count, n_vectors, form):
    """R rows of out += factorsᵀ table, over `n_vectors` vectors from column c0 on; `count` is a multiple of 4."""
    row, n_rows = Row(out.dtype, form.literal_value), rows_of(form.literal_value)
    kinds = (out, r0, table, c0, factors, f0, count, n_vectors, form)
    return types.void(*kinds), _emit_products(row, n_rows, n_vectors.literal_value, 1)


@intrinsic(prefer_literal=True)
def add_pairs(typing_context, out, r0, table, c0, factors, f0, count, n_vectors, form):
    """The same for 2 rows."""
    row, n_vec = Row(out.dtype, form.literal_value), n_vectors.literal_value
    kinds = (out, r0, table, c0, factors, f0, count, n_vectors, form)
    return types.void(*kinds), _emit_products(row, 2, n_vec, {1: 4, 2: 2, 3: 1}[n_vec])


@intrinsic(prefer_literal=True)
def pivots(typing_context, A, B, S, F, roots, i0, part, least, form):
    """Factor rows i0 to i0 + R of A, up to the end of the vector that holds their diagonal; see `normal.factor`.

    Writes those vectors of U, the rows' S, the factors F (R, R) for the vectors behind and the roots 1/U_kk.
    Returns whether each pivot was more than `least` of its diagonal.
    """
    row, n_rows = Row(A.dtype, form.literal_value), rows_of(form.literal_value)
    base = part.literal_value * n_rows % row.lanes

    def emit(context, builder, signature, arguments):
        a, b, s, f, inverse = (_Table(context, builder, signature.args[k], arguments[k]) for k in range(5))
        (first,) = _index(context, builder, signature, arguments, 5)
        number = row.vector.element
        column = builder.sub(first, context.get_constant(types.intp, base))
        zero = context.get_constant(types.intp, 0)
        tile, pair = _Tile(context, builder, row, n_rows, 1), _Tile(context, builder, row, 2, 1)
        tile.load(a, first, column)
        pair.load(b, zero, column)
        rows, sides = ([cells[0] for cells in t.cells] for t in (tile, pair))
        diagonal = [builder.extract_element(builder.load(x), _INT32(base + r)) for r, x in enumerate(rows)]
        with _loop(builder, first) as (k, _):
            tile.add_products(k, a, column, a, first, minus=True)
            pair.add_products(k, a, column, s, zero, minus=True)
        rows, sides = ([builder.load(x) for x in cells] for cells in (rows, sides))
        ok = ir.Constant(ir.IntType(1), 1)
        for r in range(n_rows):
            at = builder.add(first, context.get_constant(types.intp, r))
            pivot = builder.extract_element(rows[r], _INT32(base + r))
            limit = builder.fmul(arguments[7], diagonal[r])
            ok = builder.and_(ok, builder.fcmp_ordered(">", pivot, limit))
            share = builder.fdiv(ir.Constant(number, 1.0), pivot)
            root = lanes.call(builder, f"llvm.sqrt.f{8 * row.size}", number, [share])
            shares, here = lanes.splat(builder, row.vector, share), rows[r]
            for later in range(r + 1, n_rows):
                factor = builder.fmul(_lane(builder, here, base + later), shares)
                rows[later] = _minus_product(builder, row, factor, here, rows[later])
                place = f.at(f.row(context.get_constant(types.intp, r)), context.get_constant(types.intp, later))
                builder.store(builder.extract_element(factor, _INT32(0)), place)
            for e, side in enumerate(sides):
                value = builder.fmul(builder.extract_element(side, _INT32(base + r)), root)
                builder.store(value, s.at(s.row(at), context.get_constant(types.intp, e)))
                factor = builder.fmul(_lane(builder, side, base + r), shares)
                sides[e] = _minus_product(builder, row, factor, here, side)
            scaled = builder.fmul(here, lanes.splat(builder, row.vector, root))
            builder.store(scaled, a.at(a.row(at), column, row.vector), align=row.size)
            builder.store(root, inverse.at(inverse.data, at))
        return ok

    kinds = (A, B, S, F, roots, i0, part, A.dtype, form)
    return types.boolean(*kinds), emit


@intrinsic(prefer_literal=True)
def eliminate(typing_context, A, F, roots, i0, c0, n_vectors, form):
    """The same rows of U, from column c0 on, with the factors and roots that `pivots` found."""
    row, n_rows, n_vec = Row(A.dtype, form.literal_value), rows_of(form.literal_value), n_vectors.literal_value

    def emit(context, builder, signature, arguments):
        a, f, inverse = (_Table(context, builder, signature.args[k], arguments[k]) for k in range(3))
        first, column = _index(context, builder, signature, arguments, 3, 4)
        tile = _Tile(context, builder, row, n_rows, n_vec)
        tile.load(a, first, column)
        with _loop(builder, first) as (k, _):
            tile.add_products(k, a, column, a, first, minus=True)
        cells = [[builder.load(cell) for cell in line] for line in tile.cells]
        for r in range(n_rows):
            at = builder.add(first, context.get_constant(types.intp, r))
            pointer = f.row(context.get_constant(types.intp, r))
            for later in range(r + 1, n_rows):
                number = builder.load(f.at(pointer, context.get_constant(types.intp, later)))
                factor = lanes.splat(builder, row.vector, number)
                pairs = zip(cells[r], cells[later], strict=True)
                cells[later] = [_minus_product(builder, row, factor, x, y) for x, y in pairs]
            root = lanes.splat(builder, row.vector, builder.load(inverse.at(inverse.data, at)))
            for offset, x in zip(tile.offsets, cells[r], strict=True):
                place = a.at(a.row(at), builder.add(column, offset), row.vector)
                builder.store(builder.fmul(x, root), place, align=row.size)
        return context.get_dummy_value()

    kinds = (A, F, roots, i0, c0, n_vectors, form)
    return types.void(*kinds), emit


def _dots(context, builder, row, table, first, x, begin, end, n_rows):
    """Σ_c table[first + r, c] · x[c] of each r < n_rows, columns begin to end."""
    tile = _Tile(context, builder, row, n_rows, 1)
    tile.clear()
    step = ir.Constant(begin.type, row.lanes)
    pointers = [table.row(builder.add(first, context.get_constant(types.intp, r))) for r in range(n_rows)]
    with cgutils.for_range_slice(builder, begin, end, step, begin.type) as (c, _):
        vector = builder.load(x.at(x.data, c, row.vector), align=row.size)
        for pointer, (cell,) in zip(pointers, tile.cells, strict=True):
            other = builder.load(table.at(pointer, c, row.vector), align=row.size)
            builder.store(lanes.multiply_add(builder, row, vector, other, builder.load(cell)), cell)
    return [lanes.sum_of_lanes(builder, builder.load(cell)) for (cell,) in tile.cells]


@intrinsic(prefer_literal=True)
def four_dots(typing_context, table, j, x, width, out, form):
    """out[j + r] = table[j + r]·x, r < 4, over `width` columns."""
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        t, vector, o = (_Table(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 4))
        first, end = _index(context, builder, signature, arguments, 1, 3)
        zero = context.get_constant(types.intp, 0)
        for r, total in enumerate(_dots(context, builder, row, t, first, vector, zero, end, 4)):
            at = builder.add(first, context.get_constant(types.intp, r))
            builder.store(total, o.at(o.data, at))
        return context.get_dummy_value()

    return types.void(table, j, x, width, out, form), emit


@intrinsic(prefer_literal=True)
def back(typing_context, A, roots, z, x, i0, width, form):
    """x[i0] to x[i0 + R] of U x = z, those behind being known; x is 0 before."""
    row, n_rows = Row(A.dtype, form.literal_value), rows_of(form.literal_value)

    def emit(context, builder, signature, arguments):
        a, inverse, right, out = (_Table(context, builder, signature.args[k], arguments[k]) for k in range(4))
        first, end = _index(context, builder, signature, arguments, 4, 5)
        whole = context.get_constant(types.intp, row.lanes)
        begin = builder.mul(builder.udiv(first, whole), whole)
        known = _dots(context, builder, row, a, first, out, begin, end, n_rows)
        places = [builder.add(first, context.get_constant(types.intp, r)) for r in range(n_rows)]
        rest = [builder.fsub(builder.load(right.at(right.data, at)), x) for at, x in zip(places, known, strict=True)]
        for r in reversed(range(n_rows)):
            value = builder.fmul(rest[r], builder.load(inverse.at(inverse.data, places[r])))
            builder.store(value, out.at(out.data, places[r]))
            for before in range(r):
                u = builder.load(a.at(a.row(places[before]), places[r]))
                rest[before] = builder.fsub(rest[before], builder.fmul(u, value))
        return context.get_dummy_value()

    return types.void(A, roots, z, x, i0, width, form), emit


@intrinsic(prefer_literal=True)
def copy_row(typing_context, out, j, table, i, width, form):
    """out[j] = table[i], `width` numbers."""
    row = Row(out.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        to, source = (_Table(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        j, i, end = _index(context, builder, signature, arguments, 1, 3, 4)
        here, there = to.row(j), source.row(i)
        with _loop(builder, end, step=row.lanes) as (c, _):
            vector = builder.load(source.at(there, c, row.vector), align=row.size)
            builder.store(vector, to.at(here, c, row.vector), align=row.size)
        return context.get_dummy_value()

    return types.void(out, j, table, i, width, form), emit


@intrinsic(prefer_literal=True)
def ask(typing_context, table, i, width, form):
    """Ask for a row that will be read soon."""
    row = Row(table.dtype, form.literal_value)

    def emit(context, builder, signature, arguments):
        source = _Table(context, builder, signature.args[0], arguments[0])
        i, end = _index(context, builder, signature, arguments, 1, 2)
        there = source.row(i)
        with _loop(builder, end, step=64 // row.size) as (c, _):
            pointer = builder.bitcast(source.at(there, c), ir.IntType(8).as_pointer())
            given = [pointer, _INT32(0), _INT32(3), _INT32(1)]
            lanes.call(builder, "llvm.prefetch.p0", ir.VoidType(), given)
        return context.get_dummy_value()

    return types.void(table, i, width, form), emit
