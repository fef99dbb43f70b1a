"""The memory that a traced program holds at its fullest, if its operations are carried out one by one as they stand."""

import math
from collections.abc import Iterator

from jax.extend import core

VIEWS = ("reshape", "squeeze", "expand_dims", "stop_gradient", "copy", "optimization_barrier")
"""Operations whose results are their inputs under another shape."""


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """Returns the most bytes that are held at once, without the program's own inputs and constants.

    A value is held from where it is computed to its last use. An operation that holds a program, such as what a
    remat policy computes again, counts with the peak of that program, in the place where it runs. What a compiler
    changes is not in it: fusing leaves values away, another order or padding needs more.
    """
    last = _last_uses(jaxpr)
    held: dict[core.Var, int] = {}
    live = peak = 0
    for place, equation in enumerate(jaxpr.eqns):
        results = {var: _bytes(var) for var in equation.outvars if last.get(var, -1) > place}
        if equation.primitive.name in VIEWS:
            # The input's memory passes to the result, if nobody else needs it.
            for source in equation.invars[:1]:
                if isinstance(source, core.Var) and last.get(source) == place and source in held:
                    live -= held.pop(source)
        inner = max((peak_bytes(each) for each in _programs(equation)), default=0)
        peak = max(peak, live + max(inner, sum(map(_bytes, equation.outvars))))
        held |= results
        live += sum(results.values())
        for var in {each for each in equation.invars if isinstance(each, core.Var)}:
            if last[var] == place:
                live -= held.pop(var, 0)
    return peak


def _last_uses(jaxpr: core.Jaxpr) -> dict[core.Var, int]:
    """Returns the place of each value's last use; results of the program are used after its end."""
    last = {}
    for place, equation in enumerate(jaxpr.eqns):
        last |= {var: place for var in equation.invars if isinstance(var, core.Var)}
    return last | {var: len(jaxpr.eqns) for var in jaxpr.outvars if isinstance(var, core.Var)}


def _programs(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the programs that an operation holds; of branches one is run, so the greatest counts."""
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _bytes(var: core.Var) -> int:
    """Returns the size of a value; random keys count with the words behind them."""
    shape, kind = getattr(var.aval, "shape", ()), getattr(var.aval, "dtype", None)
    return math.prod(shape) * getattr(kind, "itemsize", 0)
