"""One step of training, compiled for one and for eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from tiny_model import random_variables
from tiny_run import ARCHITECTURE

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training import optim, sharding
from unilseg_jax.training.state import init_state
from unilseg_jax.training.step import make_predict_step, make_train_step

SIZE, PICTURES, PROMPTS = 32, 8, 2
WHOLE = UniLSeg(Architecture(**ARCHITECTURE, dropout=0.1, stochastic_depth=0.2))
BASELINE = UniLSeg(
    Architecture(**ARCHITECTURE, stochastic_depth=0.2, pre_fusion=False, language_path=False, vision_path=False)
)
# Where a gradient is zero but for rounding, Adam's own epsilon would take the rounding for a direction.
OPTIMIZER = optax.adam(3e-3, eps=1e-3)
# Of the paper. With one of 3e-3, rounding alone leads two compilations for one device apart by 4e-5 in five steps.
PAPERS = optax.adam(1e-4, eps=1e-3)
WEIGHTS = {"bce_weight": 1.0, "dice_weight": 1.0, "auxiliary_weight": 1.0}


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """Compiling takes most of the time here; what is computed stays the same but for rounding."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def mesh_of(data, fsdp=1):
    devices = jax.devices()[: data * fsdp]
    return jax.make_mesh((data, fsdp), sharding.AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


@pytest.fixture(
    scope="module", params=[BASELINE, pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["baseline", "whole"]
)
def model(request):
    """The baseline has what a divided batch could break: batch norms, noise, and means over the batch."""
    return request.param


@pytest.fixture(scope="module")
def batch():
    """Bright squares on dark ground; the first prompt names them, the second the ground."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (PICTURES, SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.zeros((PICTURES, PROMPTS, SIZE, SIZE), np.uint8)
    for number, (y, x) in enumerate(rng.integers(0, SIZE // 2, (PICTURES, 2))):
        image[number, y : y + SIZE // 2, x : x + SIZE // 2] += 180
        mask[number, 0, y : y + SIZE // 2, x : x + SIZE // 2] = 1
    mask[:, 1] = 1 - mask[:, 0]
    tokens = np.zeros((PICTURES, PROMPTS, ARCHITECTURE["word_len"]), np.int32)
    tokens[:, 0, :3] = 49406, 320, 49407
    tokens[:, 1, :4] = 49406, 518, 1000, 49407
    return {"image": image, "tokens": tokens, "mask": mask, "valid": np.ones((PICTURES, PROMPTS), bool)}


@pytest.fixture(scope="module")
def variables(model):
    """Random ones, since compiling `init` takes longer."""
    return random_variables(model, jnp.zeros((1, SIZE, SIZE, 3)), jnp.ones((1, 1, ARCHITECTURE["word_len"]), jnp.int32))


def train_step(model, mesh, optimizer=OPTIMIZER, shardings=None):
    return make_train_step(model, optimizer, mesh, seed=0, loss_weights=WEIGHTS, shardings=shardings)


@pytest.fixture(scope="module")
def one_device(model):
    return train_step(model, mesh_of(1))


def steps(step, count, variables, batch, *, mesh=None, optimizer=OPTIMIZER, shardings=None, first=0):
    """Returns the state after some steps on one batch, and the terms of each."""
    mesh = mesh or mesh_of(1)
    state = init_state(jax.tree.map(jnp.array, variables), optimizer).replace(step=jnp.int32(first))
    state = jax.device_put(state, shardings or sharding.replicated(mesh))
    sent, terms = sharding.put_batch(batch, mesh), []
    for _ in range(count):
        state, values = step(state, sent)
        terms.append({name: float(value) for name, value in values.items()})
    return state, terms


@pytest.mark.slow
def test_the_loss_falls_and_everything_moves(one_device, variables, batch):
    state, terms = steps(one_device, 30, variables, batch)
    losses = [values["loss"] for values in terms]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert int(state.step) == 30
    assert terms[0].keys() == {"loss", "bce", "dice", "auxiliary", "grad_norm"}
    assert terms[0]["grad_norm"] > 0
    for name in variables["params"]:
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params[name], variables["params"][name])
        assert any(jax.tree.leaves(changed)), f"{name} did not move"
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), state.batch_stats, variables["batch_stats"])
    assert all(jax.tree.leaves(moved)), "a batch norm did not count"


@pytest.fixture(scope="module")
def alone(model, variables, batch):
    """Five steps on one device."""
    return steps(train_step(model, mesh_of(1), PAPERS), 5, variables, batch, optimizer=PAPERS)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1), (4, 2)], ids=["data 8", "data 4 fsdp 2"])
def test_eight_devices_compute_what_one_computes(model, shape, alone, variables, batch):
    mesh = mesh_of(*shape)
    abstract = jax.eval_shape(lambda: init_state(variables, PAPERS))
    shardings = sharding.state_shardings(mesh, abstract, smallest=64)
    divided = [not place.is_fully_replicated for place in jax.tree.leaves(shardings.params)]
    assert any(divided) == (shape[1] > 1)
    layout = {"mesh": mesh, "optimizer": PAPERS, "shardings": shardings}
    together = steps(train_step(model, **layout), 5, variables, batch, **layout)
    for a, b in zip(alone[1], together[1], strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    for name in ("params", "batch_stats"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(jax.device_get(a), jax.device_get(b), rtol=0, atol=1e-5),
            getattr(alone[0], name),
            getattr(together[0], name),
        )
    moved = jax.tree.map(lambda a, b: abs(a - b).max(), alone[0].params, variables["params"])
    assert max(jax.tree.leaves(moved)) > 2e-4  # a difference of 1e-5 is one to be seen


@pytest.fixture(scope="module")
def optimizer(request, variables):
    """The optimiser of a run with an epsilon."""
    return optim.make_optimizer(
        variables["params"], lambda _: 1e-4, lr_scales=((".*", 1.0),), clip_norm=0.0, eps=request.param
    )


@pytest.fixture(scope="module")
def alone_as_a_run(model, variables, batch, optimizer):
    return steps(train_step(model, mesh_of(1), optimizer), 5, variables, batch, optimizer=optimizer)


@pytest.fixture
def differences(model, alone_as_a_run, variables, batch, optimizer, request):
    """Checks the losses of eight devices, and returns how far their parameters are from those of one."""
    mesh = mesh_of(*request.param)
    shardings = sharding.state_shardings(mesh, jax.eval_shape(lambda: init_state(variables, optimizer)), smallest=64)
    divided = [not place.is_fully_replicated for place in jax.tree.leaves(shardings.params)]
    assert any(divided) == (request.param[1] > 1)
    layout = {"mesh": mesh, "optimizer": optimizer, "shardings": shardings}
    together = steps(train_step(model, **layout), 5, variables, batch, **layout)
    losses = [[terms["loss"] for terms in each[1]] for each in (alone_as_a_run, together)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    params = jax.device_get((alone_as_a_run[0].params, together[0].params))
    moved = jax.tree.map(lambda a, b: abs(a - b).max(), params[0], variables["params"])
    assert max(jax.tree.leaves(moved)) > 2e-4  # a difference of 1e-5 is one to be seen
    return jax.tree.map(lambda a, b: np.abs(a - b), *params)


EIGHT = pytest.mark.parametrize("differences", [(8, 1), (4, 2)], ids=["data 8", "data 4 fsdp 2"], indirect=True)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [1e-6], indirect=True)
@EIGHT
def test_eight_devices_train_as_one_does(differences):
    assert max(difference.max() for difference in jax.tree.leaves(differences)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("model", [BASELINE], ids=["baseline"], indirect=True)
@pytest.mark.parametrize("optimizer", [1e-8], indirect=True)
@EIGHT
def test_with_adams_own_epsilon_rounding_alone_moves_what_has_no_gradient(alone_as_a_run, differences):
    (adam,) = [part for part in alone_as_a_run[0].opt_state if hasattr(part, "nu")]
    # The root of the mean squared gradient. Adam divides by it, and moves by its rounding what has no other.
    size = jax.tree.map(lambda nu: np.sqrt(nu / (1 - 0.999**5)), jax.device_get(adam.nu))
    trained = rounding = 0
    for difference, gradient in zip(*map(jax.tree.leaves, (differences, size)), strict=True):
        only_rounding = (gradient > 0) & (gradient < 1e-7)
        assert difference[~only_rounding].max(initial=0) <= 1e-5
        trained, rounding = trained + (gradient > 0).sum(), rounding + only_rounding.sum()
    assert 0 < rounding < 0.003 * trained


def test_noise_depends_on_the_step_alone(one_device, variables, batch):
    (first,), (again,), (later,) = (steps(one_device, 1, variables, batch, first=number)[1] for number in (5, 5, 6))
    assert first == again
    assert abs(first["loss"] - later["loss"]) > 1e-6


def test_prompts_that_only_fill_the_batch_do_not_count(one_device, variables, batch):
    valid = np.tile([True, False], (PICTURES, 1))
    one = {**batch, "valid": valid}
    other = {**one, "mask": np.concatenate([batch["mask"][:, :1], batch["mask"][:, :1]], axis=1)}
    (first,), (second,) = (steps(one_device, 1, variables, given)[1] for given in (one, other))
    assert first == pytest.approx(second, rel=1e-6)
    everything = {**other, "valid": batch["valid"]}
    assert steps(one_device, 1, variables, everything)[1][0]["loss"] != pytest.approx(first["loss"], rel=1e-3)


def test_prediction_is_of_each_picture_and_prompt_by_itself(model, variables, batch):
    predict = make_predict_step(model, mesh_of(1))
    probs = predict(variables, batch["image"], batch["tokens"])
    assert probs.shape == (PICTURES, PROMPTS, SIZE, SIZE)
    assert probs.dtype == jnp.float32
    assert (probs > 0).all()
    assert (probs < 1).all()
    order = np.roll(np.arange(PICTURES), 3)
    turned = predict(variables, batch["image"][order], batch["tokens"][order, ::-1])
    np.testing.assert_allclose(turned, probs[order][:, ::-1], atol=1e-5)
    assert np.abs(probs[0, 0] - probs[1, 0]).max() > 1e-3
    assert np.abs(probs[0, 0] - probs[0, 1]).max() > 1e-5
