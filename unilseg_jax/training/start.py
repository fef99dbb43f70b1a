"""Where a run's first weights come from."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from unilseg_jax.errors import UserError
from unilseg_jax.interop.initialise import initialise
from unilseg_jax.interop.torch_import import load_released
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training.checkpoint import CHECKPOINTS, load_pretrained


def check_given(model: str = "", swin: str = "", clip: str = "") -> None:
    """Refuses weights that are not there, before time is spent.

    Raises:
        UserError: names the key of `config.init` and the path.
    """
    for key, path in {"model": model, "swin": swin, "clip": clip}.items():
        if path and not Path(path).exists():
            raise UserError(f"config.init.{key}: no such file or folder: {path!r}")


def weights_of_run(directory: Path, init: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """Returns what a run's first weights are, and whether it goes on from a checkpoint and needs them no more.

    Args:
        directory: of the run; prints a note if it goes on and was started from other weights than these.
        init: `config.init`.

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
        print(
            f"note: {', '.join(f'config.init.{key} = {init[key]!r}' for key in other)} is not read: this run goes "
            f"on from its own checkpoint (it was started with {', '.join(repr(started[key]) for key in other)}); for "
            "other first weights name another workdir"
        )
    return started, True


def fill(fresh: dict, given: dict) -> dict:
    """Returns the variables that `first_weights` gave, fresh ones where it was handed shapes and left them."""
    return jax.tree.map(lambda new, found: new if isinstance(found, jax.ShapeDtypeStruct) else found, fresh, given)


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
