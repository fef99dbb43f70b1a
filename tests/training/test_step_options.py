"""What a step can be told: micro-batches, a moving average, frozen parameters, other statistics, divided parameters."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from tiny_run import ARCHITECTURE

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.layers import BatchNorm
from unilseg_jax.models.unilseg import Output, UniLSeg
from unilseg_jax.ops.geometry import normalise
from unilseg_jax.training import sharding
from unilseg_jax.training.state import init_state
from unilseg_jax.training.step import make_train_step

SIZE, PICTURES, PROMPTS, WIDTH = 16, 16, 3, 8
WEIGHTS = {"bce_weight": 1.0, "dice_weight": 0.5, "auxiliary_weight": 0.5}
OPTIMIZER, DESCENT = optax.adam(1e-2, eps=1e-3), optax.sgd(0.1)


class Small(UniLSeg):
    """A model that compiles at once: patches, batch norm and dropout, met by words in two layers."""

    def setup(self):
        self.patches = nn.Conv(WIDTH, (4, 4), (4, 4))
        self.norm = BatchNorm(self.norm_groups)
        self.noise = nn.Dropout(self.architecture.dropout)
        self.words = nn.Embed(20, WIDTH)

    def __call__(self, images, tokens, *, train=False):
        x = self.noise(jnp.tanh(self.norm(self.patches(images), train=train)), deterministic=not train)
        queries = self.words(tokens)
        queries = jnp.stack([queries[:, :, 0], queries.mean(2)])
        return Output(layer_logits=jnp.einsum("bhwc,qbpc->qbphw", x, queries), features={})


def small(*, norm_groups=0, dropout=0.0):
    return Small(Architecture(**ARCHITECTURE, dropout=dropout), norm_groups=norm_groups)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """Compiling takes most of the time here; what is computed stays the same but for rounding."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    compiled.cache_clear()


@pytest.fixture(scope="module")
def batch():
    """Noise; some pictures have one prompt that counts, some three."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (PICTURES, SIZE, SIZE, 3), dtype=np.uint8),
        "tokens": rng.integers(0, 20, (PICTURES, PROMPTS, 5), dtype=np.int32),
        "mask": rng.integers(0, 2, (PICTURES, PROMPTS, SIZE, SIZE), dtype=np.uint8),
        "valid": np.arange(PROMPTS) <= rng.integers(0, PROMPTS, (PICTURES, 1)),
    }


def fresh():
    images, tokens = jnp.zeros((1, SIZE, SIZE, 3)), jnp.ones((1, 1, 5), jnp.int32)
    return small().init(jax.random.key(0), images, tokens)


@pytest.fixture(scope="module")
def variables():
    return jax.device_get(fresh())


@functools.cache
def compiled(model, shape, divide, optimizer, ema, frozen, **options):
    """Returns the step on `data` × `fsdp` devices, the mesh, and the layout of the state."""
    devices = jax.devices()[: np.prod(shape)]
    mesh = jax.make_mesh(shape, sharding.AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)
    abstract = jax.eval_shape(lambda: init_state(fresh(), optimizer, ema=ema))
    shardings = sharding.state_shardings(mesh, abstract, smallest=1 if divide else sharding.SMALLEST)
    trainable = jax.tree_util.tree_map_with_path(lambda path, _: path[0].key != frozen, abstract.params)
    step = make_train_step(
        model,
        optimizer,
        mesh,
        seed=0,
        loss_weights=WEIGHTS,
        shardings=shardings,
        trainable=trainable if frozen else None,
        **options,
    )
    return step, mesh, shardings


def run(model, variables, batch, *, shape=(1, 1), steps=3, divide=False, optimizer=OPTIMIZER, ema=False, **options):
    """Returns the state and the terms of the last of some steps, on `data` × `fsdp` devices."""
    step, mesh, shardings = compiled(model, shape, divide, optimizer, ema, options.pop("frozen", None), **options)
    state = init_state(jax.tree.map(jnp.array, variables), optimizer, ema=ema)
    state = jax.device_put(state, shardings)
    for _ in range(steps):
        state, terms = step(state, sharding.put_batch(batch, mesh))
    return state, {name: float(value) for name, value in terms.items()}


def assert_same(found, wanted, atol=1e-5):
    """Compares what `run` returned."""
    assert found[1] == pytest.approx(wanted[1], rel=1e-5)
    for name in ("variables", "ema"):
        trees = (getattr(state, name) for state, _ in (found, wanted))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol), *trees)


@pytest.fixture(scope="module")
def plain(variables, batch):
    return run(small(), variables, batch)


@pytest.mark.parametrize(("accumulate", "shape"), [(16, (1, 1)), (2, (4, 2))])
def test_micro_batches_are_the_whole_batch_however_many_prompts_count(accumulate, shape, plain, variables, batch):
    assert_same(run(small(), variables, batch, accumulate=accumulate, shape=shape, divide=True), plain)


def test_an_accumulated_batch_in_which_nothing_counts_changes_nothing(variables, batch):
    nothing = {**batch, "valid": np.zeros_like(batch["valid"])}
    state, terms = run(small(), variables, nothing, accumulate=2, steps=1)
    assert terms["loss"] == terms["grad_norm"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.variables, variables)


def test_batch_norm_sees_one_micro_batch_after_the_other(variables, batch):
    state, _ = run(small(norm_groups=1), variables, batch, accumulate=2, steps=1)
    wanted = variables
    for number in range(2):
        images, tokens = (batch[name][number::2] for name in ("image", "tokens"))
        _, stats = small(norm_groups=1).apply(wanted, normalise(images), tokens, train=True, mutable="batch_stats")
        wanted = {**wanted, **stats}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.batch_stats, dict(wanted["batch_stats"])
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_micro_batch_has_noise_of_its_own(dropout, variables, batch):
    """Pictures come in pairs, of which each micro-batch has one; only those of one micro-batch count."""
    pairs = {name: np.repeat(rows[:8], 2, axis=0) for name, rows in batch.items()}
    norms = []
    for number in range(2):
        counts = np.arange(PICTURES)[:, None] % 2 == number
        _, terms = run(small(dropout=dropout), variables, {**pairs, "valid": pairs["valid"] & counts}, accumulate=2)
        norms.append(terms["grad_norm"])
    assert (abs(norms[0] - norms[1]) < 1e-6) == (dropout == 0.0)


@pytest.mark.parametrize(("norm_groups", "shape", "divide"), [(1, (8, 1), False), (1, (4, 2), True), (8, (2, 4), True)])
def test_eight_devices_compute_what_one_computes(norm_groups, shape, divide, variables, batch):
    model = small(norm_groups=norm_groups, dropout=0.1)
    options = {"accumulate": 2, "ema": True, "ema_decay": 0.9}
    alone = run(model, variables, batch, steps=5, **options)
    together = run(model, variables, batch, steps=5, shape=shape, divide=divide, **options)
    assert_same(together, alone)
    kernel = together[0].params["patches"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[-1] == WIDTH // (shape[1] if divide else 1)
    moments = optax.tree_utils.tree_get(together[0].opt_state, "mu")
    assert moments["patches"]["kernel"].sharding == kernel.sharding


def test_frozen_statistics_stay(plain, variables):
    jax.tree.map(np.testing.assert_array_equal, plain[0].batch_stats, variables["batch_stats"])


def test_statistics_of_parts_are_not_those_of_the_whole(variables, batch):
    whole, parts = (run(small(norm_groups=groups), variables, batch)[1] for groups in (1, 8))
    assert abs(whole["loss"] - parts["loss"]) > 1e-4


def test_the_moving_average_by_hand(variables, batch):
    states = [run(small(norm_groups=1), variables, batch, steps=n, ema=True, ema_decay=0.15)[0] for n in (1, 2)]
    wanted = variables
    for state, keep in zip(states, (1 / 10, 0.15), strict=True):  # at first less than the decay that was asked for
        wanted = jax.tree.map(lambda a, b, keep=keep: keep * a + (1 - keep) * b, wanted, state.variables)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ema, wanted)
    assert abs(states[1].ema["params"]["words"]["embedding"] - states[1].params["words"]["embedding"]).max() > 1e-4


def test_a_moving_average_does_not_touch_training(plain, variables, batch):
    found, terms = run(small(), variables, batch, ema=True, ema_decay=0.9)
    assert terms == plain[1]
    jax.tree.map(np.testing.assert_array_equal, found.variables, plain[0].variables)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_not_trainable_has_no_gradient(accumulate, variables, batch):
    (free, terms), (held, fewer) = (
        run(small(), variables, batch, steps=1, optimizer=DESCENT, accumulate=accumulate, frozen=frozen)
        for frozen in (None, "patches")
    )
    jax.tree.map(np.testing.assert_array_equal, held.params["patches"], variables["params"]["patches"])
    assert not np.array_equal(free.params["patches"]["kernel"], held.params["patches"]["kernel"])
    for name in ("norm", "words"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), held.params[name], free.params[name])
    assert fewer["grad_norm"] < terms["grad_norm"]
    change = optax.tree.norm(jax.tree.map(lambda a, b: a - b, held.params, variables["params"]))
    assert fewer["grad_norm"] == pytest.approx(float(change) / 0.1, rel=1e-4)
