"""The runs of `configs/`: the paper's numbers, data that has builders, steps that can be traced at full size."""

import ast
import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from unilseg_jax import config as configs
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import load_builder
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training import planning
from unilseg_jax.training.state import init_variables

FOLDER = Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
ROWS = ("baseline", "pre_fusion", "language_path", "vision_path")
PICTURES, PROMPTS = 1536, 8
YET_TO_COME = "sa1b_triplets"
"""The set that the annotation engine is to make."""


def named_in_headers():
    """Returns every config file and every variant that the header of one names, as `NAME` or `NAME:VARIANT`."""
    found = set(NAMES)
    for name in NAMES:
        header = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
        for file, variant in re.findall(r"configs/(\w+)\.py:(\w+(?:,\w+)*)", header):
            found |= {f"{file}:{variant.replace('ROW', row)}" for row in ROWS}
    return sorted(found)


@functools.cache
def load(name):
    """Returns the config `NAME` or `NAME:VARIANT`, checked as a command would."""
    file, _, variant = name.partition(":")
    flag = f"--config={FOLDER / file}.py" + (f":{variant}" if variant else "")
    return configs.parse_flags([flag, "--workdir=unused"])[0]


@functools.cache
def masks_shape(architecture, size):
    """Returns the shape of the masks that a model of any size makes in training.

    A batch larger than any machine's costs nothing here; configs that differ in nothing else are traced once.
    """
    model = UniLSeg(architecture, jnp.bfloat16)
    images = jax.ShapeDtypeStruct((PICTURES, size, size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((PICTURES, PROMPTS, architecture.word_len), jnp.int32)
    options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(0)}}
    apply = lambda *arrays: model.apply(*arrays, **options)[0].layer_logits  # noqa: E731
    return jax.eval_shape(apply, variables_of(architecture), images, tokens).shape


@functools.cache
def variables_of(architecture):
    return jax.eval_shape(lambda: init_variables(UniLSeg(architecture), 0))


@pytest.mark.parametrize("name", [*NAMES, *(f"ablation:{row}" for row in ROWS)])
def test_a_batch_of_every_config_goes_through_its_model(name):
    config = load(name)
    sizes, side = configs.architecture_of(config), config.input.size // 4
    queries = sizes.query_layers if sizes.language_path else 1
    assert masks_shape(sizes, config.input.size) == (queries, PICTURES, PROMPTS, side, side)


@pytest.mark.parametrize("name", NAMES)
def test_debug_is_the_same_run_but_small(name):
    full, small = load(name), load(f"{name}:debug")
    assert set(small.input.sources) == set(full.input.sources)
    assert set(small.evals) == set(full.evals)
    for key in ("lr_scales", "learning_rate", "decay_factor"):
        assert small.optim[key] == full.optim[key]
    for box in ("pre_fusion", "language_path", "vision_path"):
        assert small.model[box] == full.model[box]
    assert small.steps <= 10
    assert small.input.size <= 64
    assert not any(small.init.values()), "it needs no files of weights"
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables_of(configs.architecture_of(small)))) < 5e6


@functools.cache
def traced_step(name):
    """Returns (state before, state after, terms) of a step of a run, as shapes; see `twin`."""
    config = load(name)
    each = planning.program(config, planning.one_device(), accumulate=config.optim.accumulate)
    after, terms = jax.eval_shape(each.step, each.state, planning.batch_of(config, 2 * config.optim.accumulate))
    return each.state, after, terms


def twin(name):
    """Returns the first config that takes the same step: those that differ only in data, duration or rates do."""
    return next(other for other in named_in_headers() if step_keys(other) == step_keys(name))


@functools.cache
def step_keys(name):
    """Returns what the step of a run depends on."""
    config = load(name)
    optim = {key: config.optim[key] for key in ("clip_norm", "accumulate", "lr_scales", "weight_decays")}
    own = {key: config[key] for key in ("dtype", "batch_norm", "remat", "loss", "ema")}
    return repr((configs.architecture_of(config), config.input.size, config.input.prompts, optim, own))


@pytest.mark.slow
@pytest.mark.parametrize("name", named_in_headers())
def test_a_whole_step_of_every_config_keeps_the_shapes_of_its_state(name):
    before, after, terms = traced_step(twin(name))
    kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert kinds(after) == kinds(before)
    assert (after.ema is not None) == (load(name).ema.decay > 0)
    assert terms["loss"].shape == terms["grad_norm"].shape == ()


def test_headers_name_variants():
    assert {"stage1:full", "stage2:debug", "ablation:baseline,debug", "finetune_refcoco:cpu"} <= set(named_in_headers())


def test_the_stages_have_the_papers_recipe():
    one, two = load("stage1"), load("stage2")
    assert one.input.batch_size == 192 * 8
    assert (one.input.size, two.input.size) == (480, 480)
    assert (one.optim.learning_rate, two.optim.learning_rate) == (5e-5, 1e-4)
    assert two.optim.decay_factor == 0.1
    assert [round(15 * share) for share in two.optim.decay_at] == [10]
    assert two.optim.lr_scales[0] == ("image_encoder/", 0.1)
    for config, epochs in ((one, 5), (two, 15)):
        exact = epochs * config.epoch_visits / config.input.batch_size
        assert exact <= config.steps < exact + 1
    assert load("stage1:full").steps == math.ceil(5 * 11_185_362 / 1536)


def test_the_rows_of_table_8_add_one_box_each():
    boxes = [
        [load(f"ablation:{row}").model[box] for box in ("pre_fusion", "language_path", "vision_path")] for row in ROWS
    ]
    assert boxes == [[False, False, False], [True, False, False], [True, True, False], [True, True, True]]
    rest = [{**load(f"ablation:{row}").to_dict(), "model": None} for row in ROWS]
    assert rest == rest[:1] * 4


def sources_of(config):
    """Yields every data set that a run names."""
    yield from config.input.sources.values()
    yield from (entry.source for entry in config.evals.values())
    yield from config.firewall.benchmarks.values()


@pytest.mark.parametrize("name", NAMES)
def test_every_set_that_is_named_has_a_builder(name):
    for source in sources_of(load(name)):
        if source.name in ("scenes", YET_TO_COME):
            continue
        base, _, wanted = source.name.partition("/")
        found = {config.name: config for config in load_builder(base).BUILDER_CONFIGS}
        config = found[wanted or base]
        assert not config.published or source.split in config.published, (source.name, source.split)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("quickstart", "ablation")])
def test_one_key_says_where_the_prepared_sets_are(name):
    flags = [f"--config={FOLDER / name}.py", "--workdir=unused"]
    config, _ = configs.parse_flags([*flags, "--config.data_dir=elsewhere"])
    entries = [*sources_of(config), *config.benchmarks.values()]
    assert {entry.data_dir for entry in entries} == {"elsewhere"}
    source = next(iter(config.input.sources))
    config, _ = configs.parse_flags([*flags, f"--config.input.sources.{source}.data_dir=there"])
    entries = [*sources_of(config), *config.benchmarks.values()]
    assert [entry.data_dir for entry in entries] == ["there", *["prepared"] * (len(entries) - 1)]


def test_a_source_that_is_used_twice_is_changed_at_one_place():
    config = configs.base_config()
    source = configs.dataset_source("refcoco", data_dir=config.get_ref("data_dir"), split="val")
    config.input.sources.a, config.evals.b = configs.training_source(source), configs.evaluation(source)
    config.input.sources.a.data_dir = "there"
    config.data_dir = "elsewhere"
    found = [each.data_dir for each in (source, config.input.sources.a, config.evals.b.source)]
    assert found == ["elsewhere", "there", "elsewhere"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("finetune")])
def test_a_fine_tuning_starts_from_stage_2_unless_told_otherwise(name):
    assert load(name).init.to_dict() == {"model": "runs/stage2", "swin": "", "clip": ""}


def test_sizes_of_the_mixture_are_the_published_ones():
    samples = {}
    exec((FOLDER / "stage2.py").read_text(), samples)
    for name, config in (("refcoco", "refcoco"), ("refcoco_plus", "refcoco+"), ("refcocog", "refcocog")):
        found = {each.name: each for each in load_builder("refcoco").BUILDER_CONFIGS}
        assert samples["SAMPLES"][name] == found[config].published["train"].objects
    assert set(samples["SAMPLES"]) == set(samples["SETS"])
    assert load("stage2").epoch_visits == sum(samples["SAMPLES"].values())


def test_a_variant_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(UserError, match="no variant 'huge'; there are debug, tiny, small, base, large"):
        load("stage2:huge")
    with pytest.raises(UserError, match="no row 'both' of Table 8; wanted baseline, pre_fusion"):
        load("ablation:both")
