"""Command: writes a trained or converted model in the released layout.

Usage: python -m unilseg_jax.export --checkpoint DIR --output FILE.pth|FILE.safetensors
"""

from collections.abc import Sequence

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

    from unilseg_jax.interop.torch_export import checked_output, export_released, write_released
    from unilseg_jax.training.model_directory import load_pretrained

    output = checked_output(arguments.output)
    pretrained = load_pretrained(arguments.checkpoint)
    tensors, notes = export_released(pretrained)
    settings = {"word_len": pretrained.architecture.word_len, "input_size": pretrained.input_size}
    write_released(output, tensors, settings)
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {output}: {len(tensors)} tensors")


if __name__ == "__main__":
    run_command(main)
