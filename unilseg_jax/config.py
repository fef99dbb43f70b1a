"""The config of a run: its keys with their defaults, and how a command reads one."""

import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from unilseg_jax import shapes
from unilseg_jax.config_check import check_keys, check_values
from unilseg_jax.config_flags import change, check_flags, load_config, taken
from unilseg_jax.errors import UserError
from unilseg_jax.models.architecture import SWIN_SIZES, Architecture


def base_config() -> ConfigDict:
    """Returns every key of a run with the released model's sizes and the paper's recipe (section 4.1)."""
    config = ConfigDict()
    config.seed = 0
    config.steps = 10_000
    config.epoch_visits = 0  # visits of pictures per epoch as far as known before the data is there; for `plan` alone
    config.model = ConfigDict(Architecture().__dict__)
    config.dtype = "float32"  # or bfloat16: what matrix products compute in
    config.batch_norm = "global"  # statistics of the whole batch; or local: of each device; or frozen: the running ones
    config.remat = "none"  # what is computed again to save memory: the transformers' blocks, or full: convolutions too
    config.xla_flags = ""  # sets of GPU compiler flags, such as overlap,combine: xla_flags.py
    config.compilation_cache = (
        ""  # folder of compiled programs, for restarts and other runs; "": as JAX's environment says
    )
    config.mesh = ConfigDict({"fsdp": 1})  # devices that share one copy of the parameters and of the optimiser's state

    config.data_dir = "prepared"  # folder of all prepared data sets, for each source that names no other

    # Where the first weights come from; nothing given is training from scratch.
    config.init = ConfigDict({"model": "", "swin": "", "clip": ""})

    config.input = ConfigDict()
    config.input.sources = ConfigDict()  # by name, see training_source
    config.input.size = 480  # px, side of the network's square
    config.input.resize = "stretch"  # the paper; or letterbox, as released
    config.input.batch_size = 16  # pictures
    config.input.prompts = 1  # phrases per picture
    config.input.negatives = 0.0  # share of the pictures that are asked only for classes they do not hold
    config.input.flip = 0.0  # probability; the paper does not flip
    # Patches of a grid × grid raster, each hidden with the probability, where a source says so.
    config.input.hide_and_seek = ConfigDict({"grid": 16, "probability": 0.2})
    config.input.threads = 2
    config.input.workers = 0

    config.loss = ConfigDict({"bce_weight": 1.0, "dice_weight": 1.0, "auxiliary_weight": 1.0})

    config.optim = ConfigDict()
    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 0
    config.optim.schedule = "step"  # or cosine, which needs neither of the next two
    config.optim.decay_at = (2 / 3,)  # shares of the run
    config.optim.decay_factor = 0.1
    config.optim.betas = (0.9, 0.999)  # Adam's, of the gradient's mean and of its square's
    config.optim.eps = 1e-8  # Adam's, added to the root of the square's; 1e-6: see "Other devices" in docs/training.md
    config.optim.clip_norm = 0.0  # 0: off
    config.optim.accumulate = 1  # micro-batches per step, one after the other
    # First match counts, every parameter is covered: factors of the learning rate (0 freezes) and, as in AdamW, decays.
    config.optim.lr_scales = (("image_encoder/", 0.1), (".*", 1.0))
    config.optim.weight_decays = ((".*", 0.0),)

    config.ema = ConfigDict({"decay": 0.0})  # of a moving average of the parameters, for evaluations; 0: off

    # Evaluations by name; `every` 0 runs one only at the end.
    config.evals = ConfigDict()
    # Benchmarks by name, judged as `evaluate` judges them; see `benchmark`.
    config.benchmarks = ConfigDict()

    # Training pictures that are also in an evaluation, or in one of these further sources by name, are left out
    # ("drop"), or kept as the literature does, and every number marked ("paper").
    config.firewall = ConfigDict({"mode": "drop", "benchmarks": ConfigDict()})

    config.log_every = 10
    config.checkpoint_every = 1000
    config.checkpoint_minutes = 0.0  # also when the last one is so old, looked at every log_every steps; 0: off
    config.checkpoints_kept = 2
    config.best_metric = ""  # such as val/oiou: the weights of its best evaluation are kept in best/; "": off
    config.profile_steps = ()  # first and last step that a trace is written of, into profile/

    # Several processes: found without a word under Slurm and in an indexed Job of Kubernetes; "auto" lets JAX look, as
    # on TPU pods; or host:port of process 0, their number and this one's. They wait `timeout` s for one another.
    config.distributed = ConfigDict({"coordinator": "", "num_processes": 0, "process_id": -1, "timeout": 600.0})
    config.pictures = 8  # drawn per evaluation
    return config


def scenes_source(*, num_scenes: int, seed: int, size: int) -> ConfigDict:
    """Returns the source of scenes drawn on the fly; another seed gives other scenes."""
    return ConfigDict({"name": "scenes", "num_scenes": num_scenes, "seed": seed, "size": size})


def dataset_source(name: str, *, data_dir: str | FieldReference, split: str) -> ConfigDict:
    """Returns the source of a prepared data set, such as `refcoco` or `refcoco/refcocog`.

    Args:
        name: of the set.
        data_dir: what `prepare` was given as `--out`; `config.get_ref("data_dir")` follows that key until the source
            gets a folder of its own.
        split: of the set.
    """
    return ConfigDict({"name": name, "data_dir": _following(data_dir), "split": split})


def _copy(source: ConfigDict) -> ConfigDict:
    """Returns a source that follows what `source` follows, and of which a flag can change a key alone."""
    return ConfigDict({key: _following(value) for key, value in source.items(preserve_field_references=True)})


def _following(value: Any) -> Any:
    """Returns a reference of its own, so that what is written to it does not reach others; a plain value stays."""
    return value.identity() if isinstance(value, FieldReference) else value


def training_source(source: ConfigDict, *, weight: float = 0.0, hide_and_seek: bool | None = None) -> ConfigDict:
    """Returns an entry of `config.input.sources`.

    Args:
        source: what is trained on.
        weight: share of the samples, relative to the other sources; 0 for all: each its natural size.
        hide_and_seek: whether patches of its pictures are hidden; None hides them where a mask of the record has a
            score below 1, as pseudo-labels do.
    """
    entry = _copy(source)
    # A key without a value still has a type, so that a flag can give it one.
    entry.update({"weight": float(weight), "hide_and_seek": placeholder(bool)})
    entry.hide_and_seek = hide_and_seek
    return entry


def evaluation(source: ConfigDict, *, every: int = 0, shuffled: bool = False, **changes) -> ConfigDict:
    """Returns an entry of `config.evals`.

    Args:
        source: what is judged.
        every: steps between evaluations during training; 0 only at the end.
        shuffled: also ask with phrases of other pictures, at the end.
        **changes: any of `batch_size` (pictures per call of the model, of all devices of all processes together),
            `prompts`, `resize`, `threshold`, `max_images` (0: all).
    """
    entry = ConfigDict({"source": _copy(source), "every": every, "shuffled": shuffled})
    entry.update({"batch_size": 8, "prompts": 4, "resize": "stretch", "threshold": 0.5, "max_images": 0, **changes})
    return entry


def benchmark(
    name: str, *, data_dir: str | FieldReference, every: int = 0, max_images: int = 0, protocol: str = "paper"
) -> ConfigDict:
    """Returns an entry of `config.benchmarks`.

    Args:
        name: as `evaluate --benchmark` takes it, with its split: such as `ade20k:val`.
        data_dir: see `dataset_source`.
        every: steps between evaluations during training; 0 only at the end.
        max_images: only the first so many pictures, or videos; 0 for all.
        protocol: "paper", "released", or "both", of which the first counts for `best_metric` and the curves.
    """
    entry = {
        "name": name,
        "data_dir": _following(data_dir),
        "every": every,
        "max_images": max_images,
        "protocol": protocol,
    }
    return ConfigDict(entry)


def use_swin(config: ConfigDict, size: str) -> None:
    """Gives `config.model` an image encoder of a published size: a key of `SWIN_SIZES`."""
    if size not in SWIN_SIZES:
        raise UserError(f"no Swin of size {size!r}; wanted one of {', '.join(SWIN_SIZES)}")
    config.model.update(SWIN_SIZES[size])


def set_epochs(config: ConfigDict, epochs: int, visits: int) -> None:
    """Sets the steps of a run that is given in epochs; call it once the batch size is set.

    Args:
        config: the run.
        epochs: how often each sample is seen.
        visits: of pictures per epoch (docs/training.md): with one prompt per picture as many as there are samples.
            `train` prints what the data really has.
    """
    config.epoch_visits = visits
    config.steps = math.ceil(epochs * visits / config.input.batch_size)


def length_of(config: ConfigDict, visits: int) -> str:
    """Says how long a run is: its steps stay what they are when a flag changes the batch.

    Args:
        config: the run.
        visits: of pictures per epoch; 0 where that is unknown, or each source has epochs of its own.
    """
    steps, batch = config.steps, config.input.batch_size
    epochs = f" = {steps * batch / visits:.2f} epochs of {visits:,} visits" if visits else ""
    return f"{steps:,} steps of {batch:,} pictures{epochs}"


def use_variant(config: ConfigDict, variant: str) -> None:
    """Applies what stands after the colon of `--config FILE:VARIANT`; call it last.

    Args:
        config: the run.
        variant: `debug` (see `shrink`) or the image encoder's size, a key of `SWIN_SIZES`.

    Raises:
        UserError: it is neither.
    """
    if variant == "debug":
        shrink(config)
    elif variant in SWIN_SIZES:
        use_swin(config, variant)
    else:
        raise UserError(f"no variant {variant!r}; there are debug, {', '.join(SWIN_SIZES)}")


def shrink(config: ConfigDict) -> None:
    """Makes a run of seconds of one of days, for a look at whether it runs: on stand-ins, with the least model.

    Sources, evaluations, loss, rules of the optimiser and the boxes of Table 8 stay.
    """
    config.model.update(
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        window_size=4,
        text_width=64,
        text_layers=1,
        sentence_width=16,
        query_width=8,
        query_layers=1,
        ffn_width=8,
    )
    config.init.update(model="", swin="", clip="")
    config.input.update(size=32, batch_size=8, prompts=min(config.input.prompts, 2), workers=0)
    config.update(steps=6, epoch_visits=0, checkpoint_every=3, log_every=1, pictures=2)
    config.optim.update(warmup_steps=min(config.optim.warmup_steps, 2), accumulate=1)
    for entry in config.evals.values():
        entry.update(every=min(entry.every, 3), batch_size=8, prompts=2, max_images=4)
    for entry in config.benchmarks.values():
        entry.update(every=min(entry.every, 3), max_images=2)


def architecture_of(config: ConfigDict) -> Architecture:
    """Returns the model's sizes.

    Raises:
        UserError: they do not fit together.
    """
    try:
        return Architecture(**config.model.to_dict())
    except ValueError as error:
        raise UserError(f"config.model: {error}") from error


def check(config: ConfigDict) -> None:
    """Refuses keys that nothing reads and values that would fail late.

    Raises:
        UserError: names the key, its value and what is wanted.
    """
    tables = {
        "config.input.sources": lambda entry: training_source(_source_like(entry)),
        "config.evals": lambda entry: evaluation(_source_like(entry.get("source"))),
        "config.benchmarks": lambda entry: benchmark("", data_dir=""),
        "config.firewall.benchmarks": _source_like,
    }
    check_keys(config, base_config(), tables)
    architecture_of(config)
    check_values(config)


def _source_like(entry: object) -> ConfigDict:
    """Returns a source with the keys that an entry's must have; whether there is one of its name is seen later."""
    if isinstance(entry, ConfigDict) and (
        entry.get("name") == "scenes" or ("num_scenes" in entry and "data_dir" not in entry)
    ):
        return scenes_source(num_scenes=1, seed=0, size=shapes.MIN_SIDE)
    return dataset_source("", data_dir="", split="")


def parse_flags(argv: Sequence[str]) -> tuple[ConfigDict, str]:
    """Reads `--config FILE --workdir DIR [--config.key=value …]`.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The resolved config, checked, and the working directory.

    Raises:
        UserError: a flag, key or value that cannot be used.
    """
    base = base_config()
    file, rest = taken("--config", argv)
    workdir, rest = taken("--workdir", rest)
    check_flags(rest, ("--config", "--workdir"), base)
    named = bool(file.partition(":")[0])
    if not named or not workdir:
        missing = "--workdir DIR" if named else "--config FILE"
        raise UserError(f"{missing} is missing; wanted --config FILE --workdir DIR [--config.KEY=VALUE …]")
    config = load_config(file)
    change(config, rest, base)
    check(config)
    return config, workdir
