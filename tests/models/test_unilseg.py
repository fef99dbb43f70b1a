"""The whole model: sizes, prompts, the switches of Table 8."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from tiny_model import HEIGHT, TINY, WIDTH, paths, random_array, random_tokens, random_variables

from unilseg_jax.models.architecture import named_architecture
from unilseg_jax.models.unilseg import UniLSeg

SWITCHES = ("pre_fusion", "language_path", "vision_path")
CUMULATIVE = [(), ("pre_fusion",), ("pre_fusion", "language_path"), SWITCHES]
IMAGES = random_array((2, HEIGHT, WIDTH, 3))
TOKENS = random_tokens(2, 3)
RELEASED_COUNT = 197_135_160


def switched(*on, sizes=TINY):
    """Returns the sizes with only these boxes of Table 8."""
    return dataclasses.replace(sizes, **{name: name in on for name in SWITCHES})


@functools.cache
def shapes_of(sizes, height=32, width=32, images=2, prompts=3, dtype=jnp.float32):
    """Returns the shapes of logits, features and variables."""
    model = UniLSeg(sizes, dtype)

    def parts(*inputs):
        # An Output checks that it is given arrays; shapes are none.
        output, variables = model.init_with_output(*inputs)
        return output.layer_logits, output.features, variables

    pictures = jax.ShapeDtypeStruct((images, height, width, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((images, prompts, sizes.word_len), jnp.int32)
    return jax.eval_shape(parts, jax.random.key(0), pictures, tokens)


@pytest.fixture(scope="module")
def variables():
    return random_variables(UniLSeg(TINY), IMAGES, TOKENS)


@pytest.fixture(scope="module")
def evaluated(variables):
    """The output for two images with three prompts each, in one call, and the batch statistics after it."""
    return quick_jit(lambda v: UniLSeg(TINY).apply(v, IMAGES, TOKENS, mutable="batch_stats"))(variables)


@pytest.fixture(scope="module")
def together(evaluated):
    return evaluated[0]


def test_the_released_size():
    logits, _, variables = shapes_of(named_architecture("base"), 480, 480, dtype=jnp.bfloat16)
    assert logits.shape == (6, 2, 3, 120, 120)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    # Released tensors but the image tower, the logit scale, indices and counters: counted from the layout.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == RELEASED_COUNT


def test_every_feature_is_computed_in_bfloat16_and_the_logits_are_float32():
    logits, features, variables = shapes_of(TINY, dtype=jnp.bfloat16)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(features)} == {np.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


@pytest.mark.parametrize("size", [(29, 29), (103, 138)], ids=str)
def test_any_picture_size(size):
    logits, _, _ = shapes_of(TINY, *size)
    assert logits.shape == (2, 2, 3, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize("size", [(28, 64), (64, 28)], ids=str)
def test_too_small_a_picture_is_refused(size):
    with pytest.raises(ValueError, match="at least 29 px"):
        shapes_of(TINY, *size)


def test_prompts_together_are_prompts_one_by_one(variables, together):
    # Also: encoding the image once and decoding prompt by prompt is calling the model.
    model = UniLSeg(TINY)
    maps = quick_jit(lambda v, x: model.apply(v, x, method=model.encode_image))(variables, IMAGES)
    decode = quick_jit(lambda v, maps, tokens: model.apply(v, maps, tokens, method=model.decode))
    for prompt in range(3):
        alone = decode(variables, maps, TOKENS[:, prompt : prompt + 1])
        np.testing.assert_allclose(alone.layer_logits[:, :, 0], together.layer_logits[:, :, prompt], atol=1e-5)
    assert np.abs(together.mask_logits[:, 0] - together.mask_logits[:, 1]).max() > 1e-2


def test_an_image_is_encoded_once_for_all_its_prompts(together):
    assert [x.shape for x in together.features["swin"]] == [
        (2, 8, 10, 8), (2, 4, 5, 16), (2, 2, 3, 32), (2, 1, 2, 64),
    ]  # fmt: skip
    assert [x.shape[:2] for x in together.features["fused"]] == [(2, 3)] * 4


def test_logits_are_the_product_of_queries_and_mask_features(together):
    queries = np.asarray(together.features["queries"], np.float64)
    features = np.asarray(together.features["mask_features"], np.float64)
    wanted = np.einsum("qbpm,bphwm->qbphw", queries, features)
    np.testing.assert_allclose(together.layer_logits, wanted, atol=1e-4, rtol=1e-5)
    np.testing.assert_array_equal(together.mask_logits, together.layer_logits[-1])


@pytest.mark.parametrize(
    "on", [on for count in range(4) for on in itertools.combinations(SWITCHES, count)], ids=lambda on: "+".join(on)
)
def test_a_switch_removes_its_box_and_nothing_else(on):
    logits, _, variables = shapes_of(switched(*on))
    assert logits.shape == (2 if "language_path" in on else 1, 2, 3, 8, 8)
    boxes = {"image_encoder", "text_encoder", "vision_path"}
    boxes |= {"prefusion"} & {name.replace("_", "") for name in on}
    boxes |= {"language_path"} if "language_path" in on else {"sentence_proj"}
    assert set(variables["params"]) == boxes
    pyramid = {f"{part}_{level}" for part in ("adapter", "output") for level in (1, 2, 3, 4)} | {"mask_features"}
    blocks = {f"block_{level}" for level in (1, 2, 3, 4)} if "vision_path" in on else set()
    assert set(variables["params"]["vision_path"]) == pyramid | blocks


def test_the_rows_of_table_8_grow_in_parameters():
    counts = [sum(leaf.size for leaf in jax.tree.leaves(shapes_of(switched(*on))[2])) for on in CUMULATIVE]
    assert counts == sorted(set(counts))
    assert switched(*CUMULATIVE[-1]) == TINY


def test_the_baseline_s_mask_features_do_not_depend_on_the_phrase(together):
    model = UniLSeg(switched())
    variables = random_variables(model, IMAGES, TOKENS)
    output = quick_jit(model.apply)(variables, IMAGES, TOKENS)
    features = np.asarray(output.features["mask_features"])
    assert features.shape == (2, 3, 8, 10, 16)
    np.testing.assert_array_equal(features[:, 1:], features[:, :1].repeat(2, axis=1))
    # The phrase comes in by the product alone.
    sentence, layer = np.asarray(output.features["sentence"]), variables["params"]["sentence_proj"]
    query = sentence @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(output.mask_logits, np.einsum("bpm,bphwm->bphw", query, features), atol=1e-4)
    with_words = np.asarray(together.features["mask_features"])
    assert np.abs(with_words[:, 0] - with_words[:, 1]).max() > 1e-2


def cannot_learn(path):
    """Tells parameters on which the output does not depend, up to rounding."""
    # A bias of the keys adds the same to all scores of a query. The language path's self-attention is of a single
    # token, which can only look at itself; in the first layer that token is zero. What Pre-Fusion adds to all cells
    # of a level alike is taken away by the adapter's batch norm; level 4 also meets a border of zeros.
    alone = "language_path/layers_" in path and "/self_attn/" in path
    return (
        path.endswith("/key/bias")
        or (alone and ("/query/" in path or "/key/" in path))
        or path.endswith("layers_0/self_attn/value/kernel")
        or path in {f"prefusion/attention_{level}/out/bias" for level in (1, 2, 3)}
    )


@pytest.mark.slow
def test_a_training_step_reaches_every_parameter(variables):
    model = UniLSeg(dataclasses.replace(TINY, stochastic_depth=0.0))  # a dropped branch would learn nothing

    def loss(params, key):
        output, updated = model.apply(
            {**variables, "params": params}, IMAGES, TOKENS, train=True, mutable="batch_stats", rngs={"dropout": key}
        )
        target = jnp.arange(80).reshape(1, 1, 1, 8, 10) % 3
        return jnp.square(output.layer_logits - target).mean(), updated["batch_stats"]

    step = quick_jit(jax.value_and_grad(loss, has_aux=True))
    (value, stats), gradient = step(variables["params"], jax.random.key(0))
    assert np.isfinite(value)
    sizes = {path: float(np.abs(leaf).max()) for path, leaf in paths(gradient).items()}
    assert all(np.isfinite(size) for size in sizes.values())
    assert {path: size for path, size in sizes.items() if (size < 1e-5) != cannot_learn(path)} == {}
    # Words that occur learn, others do not.
    embedding = np.abs(gradient["text_encoder"]["token_embedding"]["embedding"]).max(-1)
    np.testing.assert_array_equal(np.flatnonzero(embedding), np.unique(TOKENS)[1:])
    before = paths(variables["batch_stats"])
    for path, leaf in paths(stats).items():
        assert np.abs(leaf - before[path]).max() > 1e-4, path
    other, _ = step(variables["params"], jax.random.key(1))
    assert abs(other[0] - value) > 1e-5, "dropout must follow the key"


def test_evaluation_leaves_the_statistics(variables, evaluated):
    jax.tree.map(np.testing.assert_array_equal, evaluated[1]["batch_stats"], variables["batch_stats"])


def products(jaxpr):
    """Yields matrix products and convolutions of a traced program, those of its parts too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def precisions_of_the_gradient(dtype):
    model = UniLSeg(TINY, dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES, TOKENS)

    def loss(params, batch_stats):
        given = {"params": params, "batch_stats": batch_stats}
        output, _ = model.apply(
            given, IMAGES, TOKENS, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"]
        )
        return output.mask_logits.sum()

    traced = jax.make_jaxpr(jax.grad(loss))(variables["params"], variables["batch_stats"])
    found = [equation.params["precision"] for equation in products(traced.jaxpr)]
    assert len(found) > 100
    return set(found)


HIGHEST, HIGH = (jax.lax.Precision.HIGHEST,) * 2, (jax.lax.Precision.HIGH,) * 2


def test_products_in_float32_are_not_rounded_forward_or_backward():
    assert precisions_of_the_gradient(jnp.float32) == {HIGHEST}


def test_products_in_bfloat16_are_left_to_the_chip():
    # Resizing maps is exact in any case.
    assert precisions_of_the_gradient(jnp.bfloat16) == {HIGHEST, None}


def test_a_precision_that_the_user_has_set_counts():
    with jax.default_matmul_precision("tensorfloat32"):
        assert precisions_of_the_gradient(jnp.float32) == {HIGHEST, HIGH}
