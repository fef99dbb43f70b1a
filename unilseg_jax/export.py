"""Command: writes a trained or converted model in the released layout.

Usage: python -m unilseg_jax.export --checkpoint DIR --output FILE.pth|FILE.safetensors
"""

from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.command_line import OneLineParser, path_text
from unilseg_jax.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the directory's newest weights and writes the file.

    Raises:
        UserError: there is no model, it does not fit the layout, or the file cannot be written.
    """
    parser = OneLineParser(
        prog="python -m unilseg_jax.export", description=__doc__.splitlines()[0].removeprefix("Command: ")
    )
    parser.add_argument(
        "--checkpoint",
        type=path_text,
        required=True,
        metavar="DIR",
        help="a training run's workdir or what convert wrote",
    )
    parser.add_argument(
        "--output", type=path_text, required=True, metavar="FILE", help="ends in .pth, .pt or .safetensors"
    )
    arguments = parser.parse_args(argv)

    from unilseg_jax.interop.released_code import notes_on_released_code
    from unilseg_jax.interop.torch_export import checked_output, export_released, write_released
    from unilseg_jax.training.model_directory import load_pretrained

    output = checked_output(arguments.output)
    pretrained = load_pretrained(arguments.checkpoint)
    tensors, notes = export_released(pretrained)
    settings = {"word_len": pretrained.architecture.word_len, "input_size": pretrained.input_size}
    write_released(output, tensors, settings)
    for note in (*notes, *notes_on_released_code(pretrained.architecture, pretrained.input_size)):
        print(f"note: {note}")
    print(f"wrote {output}: {len(tensors)} tensors of {_which(Path(arguments.checkpoint))}")


def _which(directory: Path) -> str:
    """Returns which of a directory's weights `load_pretrained` reads."""
    import orbax.checkpoint as ocp

    from unilseg_jax.training.best import BEST
    from unilseg_jax.training.model_directory import CHECKPOINTS

    root = directory / CHECKPOINTS
    step = max(ocp.utils.checkpoint_steps(root.absolute()))
    if not step and not (directory / "config.json").exists():
        return "a converted model"
    if (root / str(step) / "score").is_dir():
        return f"step {step}, the best evaluation's"
    which = f"step {step}" + (", its moving average" if (root / str(step) / "ema").is_dir() else "")
    best = directory / BEST
    return which + (f", the newest; those of the best evaluation are in {best}" if best.is_dir() else "")


if __name__ == "__main__":
    run_command(main)
