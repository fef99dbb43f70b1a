"""Where a run's first weights come from."""

from pathlib import Path

import jax

from unilseg_jax.errors import UserError
from unilseg_jax.interop.initialise import initialise
from unilseg_jax.interop.torch_import import load_released
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training.checkpoint import load_pretrained


def first_weights(
    variables: dict, architecture: Architecture, *, model: str = "", swin: str = "", clip: str = ""
) -> tuple[dict, list[str]]:
    """Replaces fresh variables by given ones.

    Args:
        variables: `params` and `batch_stats` of the model, fresh.
        architecture: of the model.
        model: a file of the released layout or a model directory: everything comes from it.
        swin: a file with the image encoder.
        clip: a file with the text encoder.

    Returns:
        The variables to start from, and notes to print.

    Raises:
        UserError: a file is missing, unreadable or of another architecture.
    """
    if not model:
        return initialise(variables, swin=swin or None, clip=clip or None, architecture=architecture)
    pretrained = load_pretrained(model) if Path(model).is_dir() else load_released(model)

    def shapes(tree: dict) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(key.key for key in path): tuple(leaf.shape) for path, leaf in leaves}

    found, wanted = shapes(pretrained.variables), shapes(variables)
    if found != wanted:
        names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        lines = [f"{name}: found {found.get(name, 'none')}, wanted {wanted.get(name, 'none')}" for name in names]
        raise UserError(
            f"init.model {model!r} is of another architecture than config.model; {len(names)} parameters differ, "
            f"such as {lines[0]}"
        )
    return pretrained.variables, [f"all weights from {model}"]
