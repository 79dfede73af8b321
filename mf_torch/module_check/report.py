"""What `check_module` found, as a table to read and a verdict to assert."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

HOLDS, DIFFERS, FROZEN = "agrees", "DIFFERS", "not trained"
FOLLOWS = "follows from"
_ROUNDING = 1e-14
DRAWN, OWN = "drawn parameters", "its own parameters"


class ModuleMismatchError(AssertionError):
    """A module that is not the hand-written model; its text is the report."""


@dataclass(frozen=True)
class Row:
    """One comparison with the hand-written version.

    Attributes:
        quantity: ``r̂``, ``J``, ``E``, ``∇P``, ``penalty of P``, ``P after 10 steps``, ...
        difference: the largest, relative to the largest sum of the absolute values of the terms; NaN is a failure.
        allowed: what `difference` may not exceed.
        where: at which parameters.
        tensor: the module's tensor that a gradient is of, or an empty text.
        hint: what kind of mistake a failure looks like, or an empty text.
        trained: False for the gradient of a tensor that torch does not train; it is not compared.
    """

    quantity: str
    difference: float
    allowed: float
    where: str
    tensor: str = ""
    hint: str = ""
    trained: bool = True

    @property
    def ok(self) -> bool:
        """Whether the difference is within what is allowed."""
        return not self.trained or self.difference <= self.allowed

    @property
    def verdict(self) -> str:
        """The row's result in a word."""
        if not self.trained:
            return FROZEN
        return HOLDS if self.ok else DIFFERS


@dataclass(frozen=True, eq=False)
class ModuleReport:
    """The comparisons of one module with the hand-written model; true where all of them agree.

    Attributes:
        module: name of the module's class.
        names: tensor of the module by role: ``P``, ``Q``, ``b``, ``c``, ``mu``.
        about: the case in a line: pairs, factors, μ.
        rows: the comparisons, in the order in which one depends on the other.
        notes: what is worth knowing beside them.
    """

    module: str
    names: Mapping[str, str]
    about: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every comparison agrees."""
        return all(row.ok for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    def __getitem__(self, quantity: str) -> Row:
        """The row of a quantity.

        Raises:
            KeyError: with the quantities that were compared.
        """
        for row in self.rows:
            if row.quantity == quantity:
                return row
        raise KeyError(f"{quantity!r} was not compared, but {', '.join(row.quantity for row in self.rows)}")

    def raise_for_failure(self) -> None:
        """Do nothing where all agrees.

        Raises:
            ModuleMismatchError: an AssertionError with this report as its text.
        """
        if not self.passed:
            raise ModuleMismatchError(f"\n{self}")

    def __str__(self) -> str:
        roles = ", ".join(f"{'μ' if role == 'mu' else role} = {name}" for role, name in self.names.items())
        lines = [f"{self.module} beside the hand-written model: {self.about}", roles, ""]
        width = max([len(row.quantity) for row in self.rows] + [8])
        lines.append(f"{'':{width}}  difference  allowed  verdict")
        lines += [
            f"{_padded(row.quantity, width)}  {_number(row):>10}  {row.allowed:>7.0e}  {_verdict(row)}"
            for row in self.rows
        ]
        lines += [f"HINT {', '.join(quantities)}: {hint}" for hint, quantities in self._hints().items()]
        lines += [f"NOTE {note}" for note in self.notes]
        n_failed = sum(not row.ok for row in self.rows)
        lines.append(f"{n_failed} of {len(self.rows)} comparisons differ" if n_failed else "all comparisons agree")
        return "\n".join(lines)

    def _hints(self) -> dict[str, list[str]]:
        """Hints of mistakes that follow from no other, with the quantities they are about."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.hint and not row.hint.startswith(FOLLOWS):
                found.setdefault(row.hint, []).append(row.quantity)
        return found

    def __repr__(self) -> str:
        verdict = (
            "passed" if self.passed else f"differs in {', '.join(row.quantity for row in self.rows if not row.ok)}"
        )
        return f"<ModuleReport of {self.module}: {verdict}>"


def _padded(text: str, width: int) -> str:
    """Text filled up to `width` cells: the hat of r̂ is a character that takes none."""
    return text + " " * (width - sum(not unicodedata.combining(x) for x in text))


def _number(row: Row) -> str:
    if not row.trained:
        return "-"
    # Digits of rounding differ from machine to machine, and say nothing.
    return f"< {_ROUNDING:.0e}" if row.difference < _ROUNDING else f"{row.difference:.1e}"


def _verdict(row: Row) -> str:
    parts = [row.verdict]
    if not row.ok and row.where.startswith(OWN):
        parts.append(f"at {row.where}")
    if row.hint.startswith(FOLLOWS):
        parts.append(row.hint)
    return ", ".join(parts)
