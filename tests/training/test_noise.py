"""Random bits of dropout: as even and as independent as Threefry's, and the same wherever an element is computed."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unilseg_jax.training import noise

SIDE = 1 << 10


def bits(key, shape=(SIDE, SIDE), dtype=jnp.uint32):
    return np.asarray(jax.random.bits(key, shape, dtype))


def test_every_bit_and_every_byte_is_even():
    words = bits(noise.key(0))
    share = np.unpackbits(words.reshape(-1, 1).view(np.uint8), axis=1).mean(axis=0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / SIDE
    for byte in words.reshape(-1, 1).view(np.uint8).T:
        assert stats.chisquare(np.bincount(byte, minlength=256)).pvalue > 1e-4


@pytest.mark.parametrize("lag", [(0, 1), (1, 0), (0, 2), (0, 64), (1, 1), (64, 0)])
def test_neighbours_and_rows_are_independent(lag):
    keep = bits(noise.key(1)) < 0.9 * 2**32
    other = np.roll(keep, lag, axis=(0, 1))
    assert abs(np.corrcoef(keep.ravel(), other.ravel())[0, 1]) < 5 / SIDE


def test_keys_that_are_near_have_nothing_in_common():
    root = noise.key(7)
    keys = [
        noise.key(6),
        root,
        noise.key(8),
        *jax.random.split(root, 3),
        *(jax.random.fold_in(root, i) for i in range(3)),
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)
    drawn = [np.unpackbits(bits(key).view(np.uint8)) for key in keys]
    for one, other in itertools.combinations(drawn, 2):
        assert abs((one == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(one.size)


def test_the_seed_counts_and_is_all_that_counts():
    assert (bits(noise.key(3)) == bits(noise.key(3))).all()
    assert (bits(noise.key(3)) != bits(noise.key(4))).mean() > 0.99


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_share_it_should(rate):
    layer = nn.Dropout(rate, deterministic=False)
    found = np.asarray(layer.apply({}, jnp.ones((SIDE, SIDE)), rngs={"dropout": noise.key(5)}))
    assert set(np.unique(found)) == {0.0, np.float32(1 / (1 - rate))}
    assert abs((found == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate)) / SIDE


def test_normal_numbers_are_normal():
    drawn = np.asarray(jax.random.normal(noise.key(9), (SIDE * 16,)))
    assert stats.kstest(drawn, "norm").pvalue > 1e-4


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16, jnp.uint32])
def test_words_of_every_width(dtype):
    drawn = bits(noise.key(2), (SIDE,), dtype)
    assert drawn.dtype == dtype
    assert len(np.unique(drawn)) > min(200, SIDE / 2)


def test_an_array_with_more_elements_than_words_repeats_no_row(monkeypatch):
    """Rows are drawn by keys of their own: none is another in another order."""
    monkeypatch.setattr(noise, "_WORDS", 2**18)
    drawn = bits(noise.key(0), (5, 3, 2**17))
    flat = drawn.reshape(15, -1)
    for one, other in itertools.combinations(flat, 2):
        # Of 2**17 words each, by chance 2**17 * 2**17 / 2**32 = 4 are in both.
        assert len(np.intersect1d(one, other)) < 30
    share = np.unpackbits(drawn.reshape(-1, 1).view(np.uint8), axis=1).mean(axis=0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(drawn.size)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32 - 1, 2**32 + 5])
def test_the_lowest_bits_of_any_seed_count(seed):
    assert (bits(noise.key(seed), (8,)) == bits(noise.key(seed % 2**32), (8,))).all()


def test_many_keys_at_once_draw_what_each_draws_alone():
    keys = jax.random.split(noise.key(1), 4)
    together = jax.vmap(lambda key: jax.random.bits(key, (16,), jnp.uint32))(keys)
    np.testing.assert_array_equal(together, np.stack([bits(key, (16,)) for key in keys]))


def test_words_of_64_bits_and_the_same_of_32_as_without():
    with jax.enable_x64(True):
        wide, narrow = bits(noise.key(2), (SIDE,), jnp.uint64), bits(noise.key(2), (SIDE,))
    assert wide.dtype == np.uint64
    assert len(np.unique(wide)) == SIDE
    assert abs(np.unpackbits(wide.view(np.uint8)).mean() - 0.5) < 5 * 0.5 / np.sqrt(64 * SIDE)
    np.testing.assert_array_equal(narrow, bits(noise.key(2), (SIDE,)))


def test_the_bits_do_not_depend_on_how_the_devices_divide_them():
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", "model"))
    draw = jax.jit(lambda key: jax.random.bits(key, (64, 32), jnp.uint32), out_shardings=divided)
    assert (np.asarray(draw(noise.key(11))) == bits(noise.key(11), (64, 32))).all()
