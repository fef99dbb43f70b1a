"""Label maps fused on the device: the best class of every pixel, kept while the classes pass by (paper section 4.2).

Differs: no code was released for this. Each class's logits, not its probabilities, are taken from stride 4 to the
picture's own size, then the greatest wins, the first one among equals; no threshold, no background.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Int32

from unilseg_jax.ops import geometry

_TILE = 512
"""Side in pixels. A picture is done in tiles of one size, so that its own size compiles nothing."""


class _Taps(NamedTuple):
    """Between which two cells a row or column of pixels lies; an argument of compiled code, not a part of it.

    Attributes:
        low: the first cell.
        share: 0 to 1, of the next one.
    """

    low: Int32[np.ndarray, " n"] | Int32[Array, " n"]
    share: Float32[np.ndarray, " n"] | Float32[Array, " n"]

    @classmethod
    def of(cls, positions: Float64[np.ndarray, " pixels"], cells: int) -> "_Taps":
        low = np.clip(np.floor(positions), 0, max(cells - 2, 0))
        return cls(low.astype(np.int32), (positions - low).astype(np.float32))

    def tile(self, start: int, tile: int) -> "_Taps":
        """Returns those of a tile; beyond the picture its last pixel is repeated."""
        index = np.minimum(np.arange(start, start + tile), len(self.low) - 1)
        return _Taps(self.low[index], self.share[index])


class LabelMap:
    """The best class so far, for every pixel of one picture.

    Holds one logit and one class number per pixel, whatever the number of classes. Each logit is what float32
    arithmetic gives when done in the order written in `_between`, on every device and in any bucket; hence equal
    maps stay equal, and the result is that of `argmax` over all maps at once, to the bit.

    Args:
        original_size: height and width of the picture, in pixels.
        resize: a key of `ops.geometry.RESIZES`: how the picture came into the square.
        input_size: side of the square, in pixels.
        tile: side in pixels of what is done at once.
    """

    def __init__(self, original_size: tuple[int, int], resize: str, input_size: int, *, tile: int = _TILE):
        self._size, self._resize, self._input_size, self._tile = original_size, resize, input_size, tile
        self._classes = 0
        self._tiles: dict[tuple[int, int], tuple[Array, Array]] = {}
        for corner in np.ndindex(*(-(-pixels // tile) for pixels in original_size)):
            # Of NumPy's making: JAX would compile each.
            best = np.full((tile, tile), -np.inf, np.float32), np.zeros((tile, tile), np.int32)
            self._tiles[corner[0] * tile, corner[1] * tile] = jax.device_put(best)

    def update(self, logits: Float[Array, "p h w"], count: int) -> None:
        """Lets the next classes compete.

        Args:
            logits: of a bucket of classes, finite, at stride 4 or any other.
            count: how many of them are classes; what follows only fills the bucket.
        """
        cells = logits.shape[1:]
        positions = geometry.RESIZES[self._resize].cells(self._size, self._input_size, cells)
        rows, columns = (_Taps.of(side, many) for side, many in zip(positions, cells, strict=True))
        limits = np.array([self._classes, self._classes + count], np.int32)
        for (top, left), best in self._tiles.items():
            taps = rows.tile(top, self._tile), columns.tile(left, self._tile)
            self._tiles[top, left] = _compete(best, logits, taps, limits, np.float32(0))
        self._classes += count

    def result(self) -> tuple[Int32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Returns the number of the best class, from 0 in the order of `update`, and its probability, 0 to 1."""
        labels, probs = np.empty(self._size, np.int32), np.empty(self._size, np.float32)
        for (top, left), (logit, index) in self._tiles.items():
            part = np.s_[top : top + self._tile, left : left + self._tile]
            height, width = labels[part].shape
            labels[part] = np.asarray(index)[:height, :width]
            probs[part] = np.asarray(jax.nn.sigmoid(logit))[:height, :width]
        return labels, probs


def _between(maps: Float[Array, "n m"], taps: _Taps, zero: Float32[Array, ""]) -> Float[Array, "t m"]:
    """Returns rows between rows of `maps`.

    `zero` is 0, unknown to the compiler: it would otherwise round a product and a sum at once in some loops and not
    in others, and equal maps would differ in their last bit.
    """
    high = jnp.minimum(taps.low + 1, len(maps) - 1)
    share = taps.share[:, None]
    return (maps[taps.low] * (1 - share) + zero) + (maps[high] * share + zero)


@jax.jit
def _compete(
    best: tuple[Float[Array, "t t"], Int[Array, "t t"]],
    logits: Float[Array, "p h w"],
    taps: tuple[_Taps, _Taps],
    limits: Int[Array, "2"],
    zero: Float32[Array, ""],
) -> tuple[Float[Array, "t t"], Int[Array, "t t"]]:
    """Returns the greatest logit and its class in a tile, one class of the bucket after another.

    Args:
        best: the same, of the classes before.
        logits: of the bucket.
        taps: of the tile's rows and columns.
        limits: number of the bucket's first class, and how many classes there are up to its end.
        zero: 0, see `_between`.
    """
    rows, columns = taps

    def one(place: Int[Array, ""], best: tuple) -> tuple:
        logit, index = best
        value = _between(_between(logits[place].T, columns, zero).T, rows, zero)
        label = limits[0] + place
        wins = (value > logit) & (label < limits[1])
        return jnp.where(wins, value, logit), jnp.where(wins, label, index)

    return jax.lax.fori_loop(0, len(logits), one, best)
