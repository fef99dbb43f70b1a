"""Refuses a config whose keys or values would be ignored or would fail late."""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real

from ml_collections import ConfigDict

from unilseg_jax.errors import UserError
from unilseg_jax.interop.pretrained import check_input_size
from unilseg_jax.models.architecture import BATCH_NORMS, REMATS
from unilseg_jax.text import tokenizer
from unilseg_jax.xla_flags import flags_of

SEEDS = 2**32
"""Seeds are 32 bits wide: JAX without 64-bit numbers cuts the rest off."""
RULES = "wanted are pairs of a regular expression and a number, such as (('image_encoder/', 0.1), ('.*', 1.0))"
RESIZES = ("letterbox", "stretch")
BEST_BY = ("oiou", "miou", *(f"pr_at_{percent}" for percent in (50, 60, 70, 80, 90)))
"""What of `evaluator.summarise` is the better, the greater it is."""
BENCHMARK_BEST_BY = (
    *BEST_BY,
    *("giou", "ciou", "n_acc", "t_acc", "j_and_f", "j", "f", "miou_without_background", "macc", "aacc"),
    *("f_mean", "f_max", "f_adaptive", "f_weighted", "s_measure", "e_mean", "e_max", "e_adaptive"),
)
"""The same of benchmarks."""


def check_keys(
    config: ConfigDict, wanted: ConfigDict, tables: Mapping[str, Callable[[ConfigDict], ConfigDict]]
) -> None:
    """Refuses keys that nothing reads, keys that are missing, and values of another type.

    Args:
        config: what a file made.
        wanted: has every key of a run, each with a value of the right type.
        tables: by dotted name, the tables whose entries are the user's to name: what an entry must look like.

    Raises:
        UserError: names the key, and the one that may be meant.
    """
    _compare(config, wanted, tables, "config", [key for key, _ in leaves(wanted, "config")])


def _compare(config: ConfigDict, wanted: ConfigDict, tables: Mapping, path: str, known: list[str]) -> None:
    """Compares one level and all below it; `known` are the dotted names of all keys of a run."""
    _check_table(path, config)
    for key in config:
        if key not in wanted:
            raise UserError(f"{path}.{key} is no key of a run; {meant(key, wanted, path, known)}")
    for key, example in wanted.items():
        place = f"{path}.{key}"
        if key not in config:
            # An entry may be a source as it is, without what `training_source` adds.
            if path.startswith("config.input.sources.") and key in ("weight", "hide_and_seek"):
                continue
            raise UserError(f"{place} is missing; start from base_config() and the functions of unilseg_jax/config.py")
        if place in tables:
            _check_table(place, config[key])
            for name, entry in config[key].items():
                _check_table(f"{place}.{name}", entry)
                _compare(entry, tables[place](entry), tables, f"{place}.{name}", known)
        elif isinstance(example, ConfigDict):
            _compare(config[key], example, tables, place, known)
        else:
            _check_type(place, config[key], example)


def _check_table(path: str, value: object) -> None:
    if not isinstance(value, ConfigDict):
        raise UserError(f"{path} = {value!r} must be a table of keys, a ConfigDict")


def meant(key: str, wanted: ConfigDict, path: str, known: list[str]) -> str:
    """Returns the end of an error's line about an unknown key.

    Args:
        key: the unknown one.
        wanted: has the keys that may stand there.
        path: of `wanted`.
        known: the dotted names of all keys of a run.

    Returns:
        The key of the same name elsewhere, else the closest one beside it, else elsewhere, else all beside it.
    """
    names = {place.rpartition(".")[2]: place for place in known}
    beside = [] if key in names else difflib.get_close_matches(key, wanted, n=1)
    if beside:
        return f"is {path}.{beside[0]} meant?"
    elsewhere = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
    return f"is {names[elsewhere[0]]} meant?" if elsewhere else f"{path} has {', '.join(wanted)}"


def leaves(config: ConfigDict, path: str) -> Iterator[tuple[str, object]]:
    """Yields dotted names and values of everything that is no table."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def _check_type(key: str, value: object, example: object) -> None:
    """Refuses a value of another type than the example's; None as example stands for a switch that may be unset."""
    many = isinstance(example, tuple)
    if many and isinstance(value, tuple | list) and not (value and example):
        return
    if many and not isinstance(value, tuple | list):
        raise UserError(f"{key} = {value!r} must be a tuple, such as {example}")
    if many and isinstance(example[0], tuple):
        return  # rules have a check of their own
    kind = example[0] if many else example
    if kind is None or isinstance(kind, bool):
        fits, what = (lambda one: isinstance(one, bool) or one is kind), "True or False"
    elif isinstance(kind, str):
        fits, what = (lambda one: isinstance(one, str)), "a text"
    elif isinstance(kind, int):
        fits, what = (lambda one: _is_number(one) and isinstance(one, Integral)), "a whole number"
    else:
        fits, what = (lambda one: _is_number(one) and math.isfinite(one)), "a finite number"
    if not all(fits(one) for one in (value if many else (value,))):
        raise UserError(f"{key} = {value!r} must be {what}{' at each place' if many else ''}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_values(config: ConfigDict) -> None:
    """Refuses values of the right type that cannot be used.

    Args:
        config: see `config.base_config`; its keys were checked.

    Raises:
        UserError: names the key, its value and what is wanted.
    """
    _check_least(config)
    for name, entry in config.evals.items():
        if not 0 < entry.threshold < 1:
            raise UserError(f"config.evals.{name}.threshold = {entry.threshold} must be between 0 and 1")
    if not 0 <= config.ema.decay < 1:
        raise UserError(f"config.ema.decay = {config.ema.decay} must be at least 0 and less than 1")
    if not 0 <= config.seed < SEEDS:
        raise UserError(f"config.seed = {config.seed} must be at least 0 and less than 2**32 = {SEEDS}")
    if config.model.vocab_size <= tokenizer.END:
        raise UserError(
            f"config.model.vocab_size = {config.model.vocab_size} must be at least {tokenizer.END + 1}: phrases are "
            "written in CLIP's vocabulary"
        )
    _check_optim(config.optim)
    _check_input(config.input)
    _check_choices(config)
    flags_of(config.xla_flags)
    _check_watch(config)
    names = [*config.evals, *config.benchmarks, *config.firewall.benchmarks]
    for name in (name for name in names if names.count(name) > 1):
        raise UserError(
            f"two of config.evals, config.benchmarks and config.firewall.benchmarks have an entry {name!r}; give one "
            "another name"
        )
    for name, entry in config.benchmarks.items():
        if entry.name.count(":") != 1 or not entry.name.rpartition(":")[2]:
            raise UserError(
                f"config.benchmarks.{name}.name = {entry.name!r} must be a benchmark with its split, NAME:SPLIT"
            )
    if config.init.model and (config.init.swin or config.init.clip):
        raise UserError("config.init: give either model (a whole one) or swin and clip, not both")


def _check_choices(config: ConfigDict) -> None:
    """Refuses words that are not among those to choose from."""
    choices = {
        "dtype": (config.dtype, ("float32", "bfloat16")),
        "batch_norm": (config.batch_norm, BATCH_NORMS),
        "remat": (config.remat, REMATS),
        "optim.schedule": (config.optim.schedule, ("step", "cosine")),
        "firewall.mode": (config.firewall.mode, ("drop", "paper")),
        "input.resize": (config.input.resize, RESIZES),
    }
    choices |= {f"evals.{name}.resize": (entry.resize, RESIZES) for name, entry in config.evals.items()}
    protocols = ("paper", "released", "both")
    choices |= {f"benchmarks.{name}.protocol": (entry.protocol, protocols) for name, entry in config.benchmarks.items()}
    for key, (value, names) in choices.items():
        if value not in names:
            raise UserError(f"config.{key} = {value!r} must be {' or '.join(map(repr, names))}")


def _check_watch(config: ConfigDict) -> None:
    """Refuses a metric that no evaluation has, steps that cannot be traced, a time that cannot be waited."""
    evaluation, _, number = config.best_metric.rpartition("/")
    known = dict.fromkeys(config.evals, BEST_BY) | dict.fromkeys(config.benchmarks, BENCHMARK_BEST_BY)
    if config.best_metric and evaluation not in known:
        names = ", ".join(f"{name}/{numbers[0]}" for name, numbers in known.items())
        raise UserError(f"config.best_metric = {config.best_metric!r} is of no evaluation; there are such as {names}")
    if config.best_metric and number not in known[evaluation]:
        raise UserError(
            f"config.best_metric = {config.best_metric!r} is nothing that an evaluation gets better in; wanted "
            f"{evaluation}/ and one of {', '.join(known[evaluation])}"
        )
    steps = config.profile_steps
    whole = all(_is_number(step) and isinstance(step, Integral) for step in steps)
    if steps and not (len(steps) == 2 and whole and 1 <= steps[0] <= steps[1] <= config.steps):
        raise UserError(
            f"config.profile_steps = {steps} must be a first and a last step, such as (10,12), of the run's "
            f"{config.steps}, or ()"
        )
    if config.distributed.timeout <= 0:
        raise UserError(f"config.distributed.timeout = {config.distributed.timeout} s must be greater than 0")


def _check_least(config: ConfigDict) -> None:
    """Refuses numbers below 1 or 0 where these are the least."""
    one = ["steps", "input.batch_size", "input.prompts", "input.size", "input.hide_and_seek.grid"]
    one += ["log_every", "checkpoint_every", "checkpoints_kept", "mesh.fsdp", "optim.accumulate"]
    zero = ["optim.warmup_steps", "optim.clip_norm", "optim.decay_factor", "input.threads", "input.workers", "pictures"]
    zero += ["checkpoint_minutes", "epoch_visits"]
    zero += ["loss.bce_weight", "loss.dice_weight", "loss.auxiliary_weight"]
    zero += [f"input.sources.{name}.weight" for name, entry in config.input.sources.items() if "weight" in entry]
    for name in config.evals:
        one += [f"evals.{name}.batch_size", f"evals.{name}.prompts"]
        zero += [f"evals.{name}.every", f"evals.{name}.max_images"]
    for name in config.benchmarks:
        zero += [f"benchmarks.{name}.every", f"benchmarks.{name}.max_images"]
    values = dict(leaves(config, "config"))
    for least, keys in ((1, one), (0, zero)):
        for key in keys:
            if values[f"config.{key}"] < least:
                raise UserError(f"config.{key} = {values[f'config.{key}']} must be at least {least}")


def _check_optim(config: ConfigDict) -> None:
    """Refuses what of `config.optim` would fail late."""
    if config.learning_rate <= 0:
        raise UserError(f"config.optim.learning_rate = {config.learning_rate} must be greater than 0")
    if config.eps <= 0:
        raise UserError(f"config.optim.eps = {config.eps} must be greater than 0")
    if not (len(config.betas) == 2 and all(0 <= beta < 1 for beta in config.betas)):
        raise UserError(f"config.optim.betas = {config.betas} must be two numbers, at least 0 and less than 1")
    if not all(0 <= share <= 1 for share in config.decay_at):
        raise UserError(f"config.optim.decay_at = {config.decay_at} must be shares of the run, 0 to 1 each")
    for key in ("lr_scales", "weight_decays"):
        _check_rules(f"config.optim.{key}", config[key])


def _check_rules(key: str, rules: object) -> None:
    """Refuses what is no list of a regular expression and a number each."""
    for rule in rules:
        if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)):
            raise UserError(f"{key} = {rules!r}: {rule!r} is no rule; {RULES}")
        pattern, factor = rule
        if not (_is_number(factor) and 0 <= factor < math.inf):
            raise UserError(f"{key}: the factor {factor!r} of {pattern!r} must be a finite number, at least 0")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"{key}: {pattern!r} is no regular expression ({error}); {RULES}") from None


def _check_input(config: ConfigDict) -> None:
    """Refuses what of `config.input` would fail late."""
    if not config.sources:
        raise UserError("config.input.sources is empty; name a data set to train on")
    check_input_size(config.size, "config.input.size")
    shares = {"flip": config.flip, "hide_and_seek.probability": config.hide_and_seek.probability}
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"config.input.{key} = {value} must be between 0 and 1")
    if not 0 <= config.negatives < 1:
        raise UserError(f"config.input.negatives = {config.negatives} must be at least 0 and less than 1")
