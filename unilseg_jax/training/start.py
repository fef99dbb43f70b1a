"""What a run starts with: a directory, data, first weights."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from unilseg_jax.config import base_config
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import leakage
from unilseg_jax.input_pipeline.loader import make_parts, make_source
from unilseg_jax.input_pipeline.sources import TripletSource
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.input_pipeline.visits import text_of
from unilseg_jax.interop.initialise import initialise
from unilseg_jax.interop.torch_import import load_released
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training.model_directory import CHECKPOINTS, MODEL_FILE, load_pretrained
from unilseg_jax.training.writer import METRICS_FILE

_ABSENT = object()


def check_given(model: str = "", swin: str = "", clip: str = "") -> None:
    """Refuses weights that are not there, before time is spent.

    Raises:
        UserError: names the key of `config.init` and the path.
    """
    for key, path in {"model": model, "swin": swin, "clip": clip}.items():
        if path and not Path(path).exists():
            raise UserError(
                f"config.init.{key}: no such file or folder: {path!r}; give its path, or --config.init.{key}= to start "
                "without"
            )


def weights_of_run(
    directory: Path, init: Mapping[str, str], say: Callable[[str], None] = print
) -> tuple[dict[str, str], bool]:
    """Returns what a run's first weights are, and whether it goes on from a checkpoint and needs them no more.

    Args:
        directory: of the run.
        init: `config.init`.
        say: takes a note, if the run goes on and was started from other weights than these.

    Returns:
        `config.init` as the run was started with, and whether it goes on.

    Raises:
        UserError: the weights of a new run are not there.
    """
    file, checkpoints = directory / "config.json", (directory / CHECKPOINTS).absolute()
    if not checkpoints.is_dir() or not ocp.utils.checkpoint_steps(checkpoints):
        check_given(**init)
        return dict(init), False
    before = json.loads(file.read_text(encoding="utf-8")).get("init", {}) if file.exists() else {}
    started = {key: before.get(key, value) for key, value in init.items()}
    other = [key for key in init if init[key] != started[key]]
    if other:
        say(
            f"note: {', '.join(f'config.init.{key} = {init[key]!r}' for key in other)} is not read: this run goes "
            f"on from its own checkpoint (it was started with {', '.join(repr(started[key]) for key in other)}); for "
            "other first weights name another workdir"
        )
    return started, True


def fill(given: dict, make: Callable[[], dict]) -> dict:
    """Returns the variables that `first_weights` gave, fresh ones where it was handed shapes and left them.

    Args:
        given: variables, or their shapes.
        make: returns fresh variables; not called where none are needed, since it has to be compiled.
    """
    lacks = jax.tree.map(lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct), given)
    if not any(jax.tree.leaves(lacks)):
        return given
    return jax.tree.map(lambda missing, found, new: new if missing else found, lacks, given, make())


def first_weights(
    variables: dict, architecture: Architecture, *, model: str = "", swin: str = "", clip: str = ""
) -> tuple[dict, dict[str, np.ndarray], list[str]]:
    """Replaces fresh variables by given ones.

    Args:
        variables: `params` and `batch_stats` of the model, fresh, or their shapes, to read before compiling.
        architecture: of the model.
        model: a file of the released layout or a model directory: everything comes from it.
        swin: a file with the image encoder.
        clip: a file with the text encoder.

    Returns:
        The variables to start from, tensors to carry along for an export (see `Pretrained.carried`), and
        notes to print.

    Raises:
        UserError: a file is missing, unreadable or of another architecture.
    """
    if not (model or swin or clip):
        return variables, {}, ["all weights from scratch: config.init names none"]
    if not model:
        variables, notes = initialise(variables, swin=swin or None, clip=clip or None, architecture=architecture)
        return variables, {}, notes
    pretrained = load_pretrained(model) if Path(model).is_dir() else load_released(model)

    def shapes(tree: dict) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(key.key for key in path): tuple(leaf.shape) for path, leaf in leaves}

    found, wanted = shapes(pretrained.variables), shapes(variables)
    if found != wanted:
        names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise UserError(
            f"init.model {model!r} is of another architecture than config.model; {len(names)} parameters differ, such "
            f"as {names[0]}: found {found.get(names[0], 'none')}, wanted {wanted.get(names[0], 'none')}"
        )
    return pretrained.variables, pretrained.carried, [f"all weights from {model}"]


def parts_to_train_on(config, evaluated: dict) -> tuple:
    """Opens the training sources and leaves out what is in a benchmark.

    Args:
        config: see `config.base_config`.
        evaluated: the sources of the evaluations by name.

    Returns:
        The parts of the mixture, the firewall's verdict, and the whole sources by name.
    """
    parts = make_parts(config.input.sources)
    benchmarks = evaluated | {name: make_source(entry) for name, entry in config.firewall.benchmarks.items()}
    trained_on = {part.name: part.source for part in parts}
    verdict = leakage.check(leakage.indices(trained_on), leakage.indices(benchmarks), config.firewall.mode)
    for place, part in enumerate(parts):
        kept = verdict.kept[part.name]
        if kept is not None:
            assert isinstance(part.source, TripletSource)
            parts[place] = dataclasses.replace(part, source=part.source.select(kept))
    return parts, verdict, trained_on


def check_directory(directory: Path, config) -> list[str]:
    """Refuses a run's directory that this config cannot go on with; other samples would be another run.

    Returns:
        Notes to print: what may change, but not without a trace.

    Raises:
        UserError: the directory is a file or not of a file system, holds a model that is no run's, or a run with other
            data, another model or another seed.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(directory)):  # Path has made one slash of two
        raise UserError(
            f"--workdir {str(directory)!r} is an address; mount it, and name the folder where it is mounted"
        )
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--workdir {str(directory)!r} is a file; name a directory")
    file = directory / "config.json"
    if not file.exists():
        if (directory / MODEL_FILE).exists() and not (directory / METRICS_FILE).exists():
            raise UserError(
                f"--workdir {str(directory)!r} holds a model and no run; start from it with "
                f"--config.init.model={directory}, and name another workdir"
            )
        return []
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        _fill_in(before, json.loads(base_config().to_json_best_effort()))
    except ValueError as error:
        raise UserError(f"{str(file)!r} is damaged: {error}; delete it or name another workdir") from None
    now = json.loads(config.to_json_best_effort())
    for each in (before, now):
        for key in ("threads", "workers"):  # these do not change what is read
            del each["input"][key]
    folders = [_pop_folders(each) for each in (before, now)]
    # Other devices may need another one, and the samples stay the same.
    micro_batches = [each["optim"].pop("accumulate") for each in (before, now)]
    keys = ("seed", "model", "dtype", "batch_norm", "input", "optim", "loss", "ema")
    first = next(_changes("config", *({key: each[key] for key in keys} for each in (before, now))), None)
    if first:
        key, was, given = first
        raise UserError(
            f"{str(directory)!r} holds a run with another {key}: {was}, not {given}; name another workdir, or run it "
            f"as {str(file)!r} says"
        )
    notes = []
    if micro_batches[0] != micro_batches[1]:
        notes.append(
            f"note: config.optim.accumulate was {micro_batches[0]} and is {micro_batches[1]}: the samples stay the "
            "same, noise and the statistics of batch norm are those of other micro-batches"
        )
    for name in [name for name, folder in folders[1].items() if folders[0].get(name) != folder]:
        notes.append(
            f"note: config.input.sources.{name}.data_dir was {folders[0].get(name)!r} and is {folders[1][name]!r}: "
            "the same records must lie there"
        )
    if before["steps"] != now["steps"]:
        notes.append(
            f"note: config.steps was {before['steps']} and is {now['steps']}: the learning rate's schedule is that "
            "of the new length from here on"
        )
    return notes


def _fill_in(before: Any, defaults: dict) -> None:
    """Gives a run's config the keys that came after it, whose defaults are what was done before.

    Raises:
        ValueError: there is something else in the place of a table.
    """
    if not isinstance(before, dict):
        raise ValueError(f"{before!r} is no table")
    for key, default in defaults.items():
        if isinstance(default, dict):
            _fill_in(before.setdefault(key, {}), default)
        else:
            before.setdefault(key, default)


def _changes(path: str, before: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    """Yields the dotted name and both values of each key that differs, "nothing" for one that is not there."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *before]):
            yield from _changes(f"{path}.{key}", before.get(key, _ABSENT), now.get(key, _ABSENT))
    elif before != now:
        yield path, *("nothing" if value is _ABSENT else repr(_as_in_config(value)) for value in (before, now))


def _as_in_config(value: Any) -> Any:
    """Returns a value with tuples, as configs and flags have them, for lists, as JSON has them."""
    return tuple(map(_as_in_config, value)) if isinstance(value, list) else value


def _pop_folders(config: dict) -> dict[str, str]:
    """Takes the folders of the training sources out of a config: data may be moved, or copied to each machine."""
    sources = config["input"]["sources"]
    tables = {name: source for name, source in sources.items() if isinstance(source, dict)}
    return {name: source.pop("data_dir") for name, source in tables.items() if "data_dir" in source}


def sample_ids(visits: grain.MapDataset, batch_size: int, step: int) -> list[str]:
    """Returns the names of the pictures that a step trains on, in their order.

    Args:
        visits: of the run (`Mixture.visits`).
        batch_size: of all processes together.
        step: its number, counted from 1.
    """
    pictures = (visits[number].picture for number in range((step - 1) * batch_size, step * batch_size))
    return [each.image_id if isinstance(each, Triplet) else text_of(each["image_id"]) for each in pictures]
