"""Configs: each is a model that can be built, and every mistake on the command line costs one line."""

import ast
import functools
import importlib.util
from pathlib import Path

import jax
import pytest
from refusals import refused
from tiny_run import run as run_process

from unilseg_jax import config as configs
from unilseg_jax import train
from unilseg_jax.errors import ExternalError, UserError
from unilseg_jax.locks import held
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training import optim, state

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
README = ROOT / "README.md"
QUICKSTART = str(ROOT / "configs" / "quickstart.py")
REFCOCO = str(ROOT / "configs" / "finetune_refcoco.py")
LINE = next(i for i, line in enumerate(Path(REFCOCO).read_text().splitlines(), 1) if 'ValueError(f"no set' in line)
"""Where that file refuses a set that it does not know."""


def load(path, *arguments):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


def parse(*arguments):
    return configs.parse_flags(arguments)


@functools.cache
def variables_of(architecture):
    """Returns the shapes of a model's variables; many configs share a model."""
    return jax.eval_shape(lambda: state.init_variables(UniLSeg(architecture), 0))


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        *((path, ()) for path in FILES),
        (ROOT / "configs" / "finetune_refcoco.py", ("cpu",)),
        (ROOT / "configs" / "finetune_refcoco.py", ("tiny,refcocog",)),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else ",".join(value),
)
def test_every_config_is_a_model_with_an_optimiser_that_covers_it(path, arguments):
    config = load(path, *arguments)
    configs.check(config)
    variables = variables_of(configs.architecture_of(config))
    assert variables["params"]["image_encoder"]
    scales = optim.group_scales(variables["params"], config.optim.lr_scales)
    assert set(jax.tree.leaves(scales)) <= {float(factor) for _, factor in config.optim.lr_scales}
    assert config.evals, "a run that judges nothing"


def test_the_configs_import_nothing_but_the_config_module():
    assert len(FILES) >= 2
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module == "unilseg_jax.config", path.name
            assert not isinstance(node, ast.Import), path.name


def test_the_base_config_is_the_released_model():
    config = configs.base_config()
    architecture = configs.architecture_of(config)
    assert (architecture.embed_dim, architecture.depths, architecture.query_layers) == (128, (2, 2, 18, 2), 6)
    assert config.input.size == 480
    assert config.optim.lr_scales[0] == ("image_encoder/", 0.1)


def test_held_out_scenes_are_others_than_those_trained_on():
    config = load(Path(QUICKSTART))
    assert config.evals.held_out.source.seed != config.input.sources.scenes.seed
    assert config.evals.held_out.shuffled


def test_use_swin_takes_a_published_size():
    config = configs.base_config()
    with pytest.raises(UserError, match="no Swin of size 'huge'; wanted one of tiny, small"):
        configs.use_swin(config, "huge")
    configs.use_swin(config, "tiny")
    assert configs.architecture_of(config).depths == (2, 2, 6, 2)
    assert configs.architecture_of(config).num_heads == (3, 6, 12, 24)


def test_flags_change_keys_of_every_type():
    config, workdir = parse(
        f"--config={QUICKSTART}",
        "--workdir=somewhere",
        "--config.steps=7",
        "--config.model.depths=(1,1,3,1)",
        "--config.optim.decay_at=(0.5,)",
        "--config.optim.learning_rate=3e-4",
        "--config.model.pre_fusion=False",
        "--config.evals.held_out.resize=letterbox",
    )
    assert workdir == "somewhere"
    assert (config.steps, config.optim.learning_rate, config.optim.decay_at) == (7, 3e-4, (0.5,))
    assert config.evals.held_out.resize == "letterbox"
    architecture = configs.architecture_of(config)
    assert architecture.depths == (1, 1, 3, 1)
    assert architecture.pre_fusion is False


def test_flags_may_be_written_apart_and_a_config_takes_an_argument():
    config, workdir = parse("--config", f"{REFCOCO}:cpu", "--workdir", "w")
    assert (config.model.embed_dim, workdir) == (32, "w")


MISTAKES = {
    "unknown key": (["--config.input.batchsize=4"], "batchsize"),
    "unknown key of the model": (["--config.model.widths=4"], "widths"),
    "unknown flag": (["--sharpen"], "sharpen"),
    "text for a number": (["--config.steps=many"], "many"),
    "fraction for a whole number": (["--config.steps=2.5"], "2.5"),
    "surplus argument": (["surplus"], "surplus"),
    "no steps": (["--config.steps=0"], "config.steps = 0"),
    "no batch": (["--config.input.batch_size=-8"], "config.input.batch_size = -8"),
    "no prompts of an evaluation": (["--config.evals.held_out.prompts=0"], "evals.held_out.prompts = 0"),
    "negative period": (["--config.evals.held_out.every=-1"], "evals.held_out.every = -1 must be at least 0"),
    "threshold outside": (["--config.evals.held_out.threshold=1.0"], "threshold = 1.0 must be between 0 and 1"),
    "negative rate": (["--config.optim.learning_rate=-1e-3"], "learning_rate = -0.001 must be greater than 0"),
    "input too small": (["--config.input.size=28"], "config.input.size is 28 px; 29 to 4096 px are wanted"),
    "weight below none": (["--config.input.sources.scenes.weight=-1.0"], "input.sources.scenes.weight = -1.0 must be"),
    "nothing but negatives": (["--config.input.negatives=1.0"], "input.negatives = 1.0 must be at least 0 and less"),
    "flips more than always": (["--config.input.flip=1.5"], "config.input.flip = 1.5 must be between 0 and 1"),
    "grid without patches": (
        ["--config.input.hide_and_seek.grid=0"],
        "input.hide_and_seek.grid = 0 must be at least 1",
    ),
    "text for a yes or no": (["--config.input.sources.scenes.hide_and_seek=often"], "hide_and_seek"),
    "unknown resize": (["--config.input.resize=crop"], "'crop' must be 'letterbox' or 'stretch'"),
    "unknown resize of an evaluation": (["--config.evals.held_out.resize=crop"], "evals.held_out.resize"),
    "unknown dtype": (["--config.dtype=float16"], "float16"),
    "unknown remat": (["--config.remat=some"], "config.remat = 'some' must be 'none' or 'blocks' or 'full'"),
    "unknown batch norm": (["--config.batch_norm=synced"], "config.batch_norm = 'synced'"),
    "unknown schedule": (["--config.optim.schedule=linear"], "config.optim.schedule = 'linear'"),
    "average that never moves": (["--config.ema.decay=1.0"], "config.ema.decay = 1.0 must be at least 0 and less"),
    "no device for a copy": (["--config.mesh.fsdp=0"], "config.mesh.fsdp = 0 must be at least 1"),
    "no micro-batch": (["--config.optim.accumulate=0"], "config.optim.accumulate = 0 must be at least 1"),
    "sizes that do not fit": (["--config.model.embed_dim=12"], "config.model: "),
    "two first weights": (["--config.init.model=a", "--config.init.clip=b"], "not both"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_costs_one_line_that_names_it(name, tmp_path, capsys):
    more, message = MISTAKES[name]
    workdir = tmp_path / "run"
    line = refused([f"--config={QUICKSTART}", f"--workdir={workdir}", *more], capsys)
    assert message in line
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config FILE is missing"),
        (["--workdir=w"], "--config FILE is missing"),
        ([f"--config={QUICKSTART}"], "--workdir DIR is missing"),
        ([f"--config={QUICKSTART}", "--workdir="], "--workdir DIR is missing"),
        (["--config=absent.py", "--workdir=w"], "absent.py"),
        ([f"--config={REFCOCO}:huge", "--workdir=w"], "huge"),
        (
            [f"--config={REFCOCO}:cpu,refcocox", "--workdir=w"],
            f"line {LINE}: no set 'refcocox'; wanted SIZE or SIZE,SET",
        ),
    ],
    ids=["nothing", "no config", "no workdir", "empty workdir", "no such file", "no such size", "no such set"],
)
def test_what_is_missing_is_named(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(arguments, capsys)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def nothing_compiles(monkeypatch):
    """Fails the test if anything is handed to the compiler, but by modules that are imported."""
    importlib.import_module("unilseg_jax.training.benchmarks")

    def compile_nothing(*_, **__):
        raise AssertionError("jax.jit was reached")

    monkeypatch.setattr(jax, "jit", compile_nothing)


LATER_MISTAKES = {
    "batch that does not divide": (QUICKSTART, ["--config.input.batch_size=12"], "batch size 12 does not divide"),
    "batch of an evaluation": (QUICKSTART, ["--config.evals.held_out.batch_size=12"], "evals.held_out.batch_size 12"),
    "data folder that is not there": (
        f"{REFCOCO}:cpu",
        ["--config.input.sources.train.data_dir=absent"],
        "no prepared data set",
    ),
    "scenes that are too small": (QUICKSTART, ["--config.input.sources.scenes.size=63"], "at least 64"),
    "held-out scenes that are none": (QUICKSTART, ["--config.evals.held_out.source.num_scenes=0"], "at least 1"),
    "source whose keys do not belong": (QUICKSTART, ["--config.input.sources.scenes.name=refcoco"], "refcoco"),
    "source that is misspelt": (
        QUICKSTART,
        ["--config.input.sources.scenes.name=scene"],
        "no source is called 'scene'; is 'scenes' meant?",
    ),
    "one picture to shuffle": (QUICKSTART, ["--config.evals.held_out.source.num_scenes=1"], "evals.held_out.shuffled"),
    "first weights that are none": (QUICKSTART, [f"--config.init.model={README}"], "README.md' is not a checkpoint"),
    "image encoder that is none": (QUICKSTART, [f"--config.init.swin={README}"], "README.md' is not a checkpoint"),
    "text encoder that is none": (QUICKSTART, [f"--config.init.clip={README}"], "README.md' is not a checkpoint"),
    "rule that matches no parameter": (QUICKSTART, ["--config.optim.lr_scales=(('swin/',0.1),('.*',1.0))"], "swin/"),
}


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize("name", LATER_MISTAKES)
def test_config_and_data_that_do_not_fit_are_refused_before_anything_is_compiled(name, tmp_path, capsys, monkeypatch):
    """The tests see eight devices, among which 12 does not divide."""
    monkeypatch.chdir(tmp_path)  # where nothing is prepared
    file, more, message = LATER_MISTAKES[name]
    workdir = tmp_path / "run"
    line = refused([f"--config={file}", f"--workdir={workdir}", *more], capsys)
    assert message in line
    assert not workdir.exists()


@pytest.mark.usefixtures("nothing_compiles")
def test_a_directory_in_which_another_process_trains_is_refused(tmp_path):
    flags = [f"--config={QUICKSTART}", f"--workdir={tmp_path}"]
    with held(tmp_path, RuntimeError()), pytest.raises(ExternalError, match="another process trains in"):
        train.main(flags)
    assert not list(tmp_path.iterdir())


def test_the_command_ends_with_one_line_and_code_2(tmp_path):
    workdir = tmp_path / "run"
    code, out, err = run_process([f"--config={QUICKSTART}", f"--workdir={workdir}", "--config.input.batchsize=4"])
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "batchsize" in err
    assert err.count("\n") == 1, err
    assert not workdir.exists()


def test_a_run_without_a_source_is_refused():
    with pytest.raises(UserError, match=r"config\.input\.sources is empty"):
        configs.check(configs.base_config())


def test_a_source_needs_no_weight():
    config = load(Path(QUICKSTART))
    config.input.sources.plain = configs.scenes_source(num_scenes=5, seed=3, size=64)
    configs.check(config)
    config.input.sources.plain.weight = -1.0
    with pytest.raises(UserError, match=r"input\.sources\.plain\.weight = -1\.0"):
        configs.check(config)


def test_flags_change_single_keys_of_a_source():
    config, _ = parse(
        f"--config={REFCOCO}",
        "--workdir=w",
        "--config.input.sources.train.split=val",
        "--config.input.sources.train.weight=0.5",
        "--config.input.sources.train.hide_and_seek=True",
    )
    entry = config.input.sources.train
    assert (entry.name, entry.split, entry.weight, entry.hide_and_seek) == ("refcoco/refcoco", "val", 0.5, True)
    assert parse(f"--config={REFCOCO}", "--workdir=w")[0].input.sources.train.hide_and_seek is None


def test_check_names_the_key():
    config = configs.base_config()
    config.checkpoints_kept = 0
    with pytest.raises(UserError, match="checkpoints_kept = 0 must be at least 1"):
        configs.check(config)
