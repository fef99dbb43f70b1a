"""Keys of dropout whose random bits are a short hash of an element's place, not JAX's Threefry.

Threefry takes some ninety instructions for each element, a hash twenty, so that XLA joins it to what reads the mask and
has less to compile. The bits depend on the key and the place alone: they are the same however a batch is divided. For
dropout, where nobody guards a secret and no period counts.
"""

import math

import jax
import jax.extend
import jax.numpy as jnp
from jaxtyping import Array, UInt32

_LANES = ((0x9E3779B9, 0x7F4A7C15), (0xF39CC060, 0x5CEDC834))
"""Words that set the two halves of a new key apart from each other and from random bits."""
_WORDS = 2**32


def _mix(x: UInt32[Array, "*b"]) -> UInt32[Array, "*b"]:
    """Returns `x` with every bit changed by every other: Wellons' "lowbias32", a permutation of 32-bit words."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _hash(key: UInt32[Array, "*k 2"], words: UInt32[Array, "*b"]) -> UInt32[Array, "*c"]:
    """Returns a word for each word: a permutation of all words that the key chooses."""
    return _mix(_mix(words ^ key[..., 0]) ^ key[..., 1])


def _fold_in(key: UInt32[Array, " 2"], words: UInt32[Array, "*b"]) -> UInt32[Array, "*b 2"]:
    """Returns a key for each word."""
    halves = [_hash(key ^ jnp.array(lane, jnp.uint32), words) for lane in _LANES]
    return jnp.stack(halves, axis=-1)


def _seed(seed: Array) -> UInt32[Array, " 2"]:
    """Returns the key of a seed."""
    return _fold_in(jnp.zeros(2, jnp.uint32), seed.astype(jnp.uint32))


def _split(key: UInt32[Array, " 2"], shape: tuple[int, ...]) -> UInt32[Array, "*b 2"]:
    """Returns `shape` keys; they are those that `fold_in` with 0 and then with their number gives."""
    return _fold_in(_fold_in(key, jnp.uint32(0)), jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape))


def _places(shape: tuple[int, ...]) -> UInt32[Array, "*b"]:
    """Returns the place of each element of an array, the last axis running fastest."""
    place = jnp.zeros(shape, jnp.uint32)
    for axis, step in enumerate(math.prod(shape[axis + 1 :]) for axis in range(len(shape))):
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(step)
    return place


def _random_bits(key: UInt32[Array, " 2"], bit_width: int, shape: tuple[int, ...]) -> Array:
    """Returns unsigned integers of 8, 16, 32 or 64 bits."""
    if bit_width == 64:
        high, low = (_random_bits(half, 32, shape).astype(jnp.uint64) for half in _split(key, (2,)))
        return (high << 32) | low
    # An array of a pod can have more elements than there are words: its last axes, as many as words suffice for, are
    # then drawn with a key for each place in the first ones.
    first = next(axis for axis in range(len(shape) + 1) if math.prod(shape[axis:]) < _WORDS)
    places = _places((*[1] * first, *shape[first:]))
    if first:
        key = _fold_in(key, _places((*shape[:first], *[1] * (len(shape) - first))))
    words = _hash(key, places)
    return words.astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width])


_IMPLEMENTATION = jax.extend.random.define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in, name="place_hash", tag="ph"
)


def key(seed: int) -> jax.Array:
    """Returns the key of a seed, for everything of `jax.random` and for Flax's `rngs`.

    Args:
        seed: a signed integer of 64 bits, of which the lowest 32 count.
    """
    return jax.random.key(seed, impl=_IMPLEMENTATION)
