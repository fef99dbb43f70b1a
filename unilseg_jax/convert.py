"""Command: turns a file of the released layout into a model directory.

Usage: python -m unilseg_jax.convert --input FILE --output DIR
"""

from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.command_line import OneLineParser, positive_int
from unilseg_jax.errors import UserError, checked_file, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the file, checks every tensor, then writes the directory.

    Raises:
        UserError: the file is not such a model, or the output exists; nothing is written then.
    """
    parser = OneLineParser(
        prog="python -m unilseg_jax.convert", description=__doc__.splitlines()[0].removeprefix("Command: ")
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="a .pth or .safetensors file")
    parser.add_argument("--output", required=True, metavar="DIR", help="the directory to write; must be new")
    number = {"type": positive_int, "metavar": "N"}
    parser.add_argument("--word-len", **number, help="tokens of a phrase (default: as the file says, or 17)")
    parser.add_argument("--input-size", **number, help="side in pixels (default: as the file says, or 480)")
    arguments = parser.parse_args(argv)
    checked_file(arguments.input, "checkpoint")
    output = Path(arguments.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output {str(output)!r} exists and is not empty; name a new directory")

    from unilseg_jax.interop.torch_import import read_released
    from unilseg_jax.training.checkpoint import save_pretrained

    pretrained, notes = read_released(arguments.input, word_len=arguments.word_len, input_size=arguments.input_size)
    for note in notes:
        print(f"note: {note}")
    try:
        save_pretrained(output, pretrained)
    except OSError as error:
        raise UserError(f"cannot write {str(output)!r}: {error.strerror or error}") from error
    sizes = pretrained.architecture
    print(
        f"wrote {output}: Swin of {sizes.embed_dim} channels and {'-'.join(map(str, sizes.depths))} blocks, "
        f"{sizes.query_layers} query layers, phrases of {sizes.word_len} tokens, {pretrained.input_size} px"
    )


if __name__ == "__main__":
    run_command(main)
