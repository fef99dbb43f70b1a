"""The most memory that a traced program holds, against programs that are counted by hand."""

import jax
import jax.numpy as jnp

from unilseg_jax.training.liveness import peak_bytes

SIZE = 100
BYTES = 4 * SIZE


def peak(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes or ((SIZE,),)]
    return peak_bytes(jax.make_jaxpr(function)(*arrays).jaxpr)


def test_a_value_is_held_until_its_last_use_and_inputs_are_not_counted():
    assert peak(lambda x: jnp.sin(x)) == BYTES
    # One result and the one it is made of, however long the chain.
    assert peak(lambda x: jnp.sin(jnp.cos(jnp.sin(jnp.cos(x))))) == 2 * BYTES

    def kept(x):
        first = jnp.sin(x)
        return first * jnp.cos(jnp.tanh(jnp.exp(first)))

    assert peak(kept) == 3 * BYTES


def test_another_shape_of_the_same_numbers_takes_no_memory():
    assert peak(lambda x: jnp.sin(jnp.sin(x).reshape(10, 10))) == 2 * BYTES
    assert peak(lambda x: x.reshape(10, 10)) == BYTES


def test_what_is_computed_within_an_operation_counts_where_it_runs():
    inner = jax.jit(lambda x: jnp.sin(jnp.cos(jnp.sin(x))))
    assert peak(inner) == 2 * BYTES
    # The first value is needed afterwards, so it is held beside the two within.
    assert peak(lambda x: (lambda first: first + inner(first))(jnp.exp(x))) == 3 * BYTES


def test_a_block_that_is_computed_again_keeps_its_input_alone():
    def block(x):
        for _ in range(5):
            x = jnp.sin(x)
        return x

    def gradient_of(one):
        return jax.grad(lambda x: one(one(one(one(x)))).sum())

    plain, again = (peak(gradient_of(one)) for one in (block, jax.checkpoint(block)))
    # Kept are 20 cosines; or three blocks' inputs and, in one block at a time, five.
    assert 20 * BYTES <= plain <= 23 * BYTES
    assert 8 * BYTES <= again <= 12 * BYTES


def test_random_keys_are_counted():
    assert peak(lambda x: jax.random.uniform(jax.random.key(0), x.shape)) >= BYTES
