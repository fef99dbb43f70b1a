"""A table of chips: peak speeds, memory and links, as their makers' data sheets give them (dense, without sparsity)."""

import dataclasses
import re

from unilseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator, as JAX sees it: one device.

    Attributes:
        name: as in `--chips 8xNAME`.
        bfloat16: peak of matrix products in bfloat16, TFLOP/s.
        float32: the same with factors that are not rounded, as the model multiplies float32 (`models/unilseg.py`):
            plain float32 on GPUs, without tensor cores; on TPUs a sixth of bfloat16, since precision "highest" takes
            six passes of it. Where `JAX_DEFAULT_MATMUL_PRECISION` allows rounding, more than this can be reached.
        memory: GiB; for GPUs the size that is sold, of which the driver takes a little.
        link: to the other chips of a node or slice, GB/s in one direction, all links together.
        kind: regular expression of `jax.Device.device_kind`.
    """

    name: str
    bfloat16: float
    float32: float
    memory: float
    link: float
    kind: str

    def peak(self, dtype: str) -> float:
        """Returns FLOP/s of matrix products in `dtype`: `float32` or `bfloat16`."""
        return 1e12 * {"float32": self.float32, "bfloat16": self.bfloat16}[dtype]


# V100's tensor cores know no bfloat16, so both types run at the plain float32 speed. H100 and H200 are the SXM ones.
_TABLE = (
    #     name           bfloat16 float32 memory  link  device kind
    ("V100-16", 15.7, 15.7, 16, 150, r"V100.*16GB"),
    ("V100", 15.7, 15.7, 32, 150, r"V100"),
    ("A100-40", 312, 19.5, 40, 300, r"A100.*40GB"),
    ("A100", 312, 19.5, 80, 300, r"A100"),
    ("L4", 121, 30.3, 24, 32, r"L4$"),
    ("H100", 989, 67, 80, 450, r"H100"),
    ("H200", 989, 67, 141, 450, r"H200"),
    ("TPUv4", 275, 275 / 6, 32, 300, r"TPU v4$"),
    ("TPUv5e", 197, 197 / 6, 16, 200, r"TPU v5 ?(lite|e)"),
    ("TPUv5p", 459, 459 / 6, 95, 600, r"TPU v5p?$"),
    ("TPUv6e", 918, 918 / 6, 32, 448, r"TPU v6 ?(lite|e)"),
)
CHIPS = {
    name: Chip(
        name=name, kind=kind, **dict(zip(("bfloat16", "float32", "memory", "link"), map(float, sizes), strict=True))
    )
    for name, *sizes, kind in _TABLE
}
"""By name. Where two kinds match a device, the first counts."""


def chip_named(name: str) -> Chip:
    """Returns a chip by its name in the table, whatever the case of its letters.

    Raises:
        UserError: it is not in the table.
    """
    for chip in CHIPS.values():
        if chip.name.lower() == name.lower():
            return chip
    raise UserError(f"no chip {name!r} in the table; there are {', '.join(CHIPS)}")


def chip_of(device_kind: str) -> Chip | None:
    """Returns the chip of a `jax.Device.device_kind`, None if it is not in the table."""
    return next((chip for chip in CHIPS.values() if re.search(chip.kind, device_kind)), None)
