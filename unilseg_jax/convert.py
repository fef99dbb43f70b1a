"""Command: turns a file of the released layout into a model directory.

Usage: python -m unilseg_jax.convert --input FILE --output DIR
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unilseg_jax.command_line import OneLineParser, path_text, positive_int
from unilseg_jax.errors import checked_file, run_command

if TYPE_CHECKING:  # main imports it once the arguments were checked: it takes long
    from unilseg_jax.interop.pretrained import Pretrained

_LIKE_RELEASED = (
    "window_size",
    "text_width",
    "text_layers",
    "sentence_width",
    "vocab_size",
    "context_length",
    "query_width",
    "query_layers",
    "ffn_width",
)
"""Sizes that are alike whichever published Swin the model has."""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the file, checks every tensor, then writes the directory.

    Raises:
        UserError: the file is not such a model, or the output exists; nothing is written then.
    """
    parser = OneLineParser(
        prog="python -m unilseg_jax.convert", description=__doc__.splitlines()[0].removeprefix("Command: ")
    )
    parser.add_argument("--input", type=path_text, required=True, metavar="FILE", help="a .pth or .safetensors file")
    parser.add_argument(
        "--output", type=path_text, required=True, metavar="DIR", help="the directory to write; must be new"
    )
    number = {"type": positive_int, "metavar": "N"}
    parser.add_argument("--word-len", **number, help="tokens of a phrase (default: as the file says, or 17)")
    parser.add_argument("--input-size", **number, help="side in pixels (default: as the file says, or 480)")
    arguments = parser.parse_args(argv)
    checked_file(arguments.input, "checkpoint")
    output = Path(arguments.output)

    from unilseg_jax.interop.output import check_new_folder
    from unilseg_jax.interop.pretrained import check_input_size
    from unilseg_jax.interop.torch_import import read_released
    from unilseg_jax.training.model_directory import save_pretrained

    check_new_folder(output)
    if arguments.input_size:
        check_input_size(arguments.input_size, "--input-size")
    pretrained, notes = read_released(arguments.input, word_len=arguments.word_len, input_size=arguments.input_size)
    for note in notes:
        print(f"note: {note}")
    save_pretrained(output, pretrained)
    for line in _described(pretrained):
        print(line)
    print(f"wrote {output}")


def _described(pretrained: "Pretrained") -> list[str]:
    """Returns every size that was read off the file, and where it is not a published one: a cut file shows there."""
    from unilseg_jax.models.architecture import SWIN_SIZES, Architecture

    sizes, released = pretrained.architecture, Architecture()
    blocks, heads = ("-".join(map(str, numbers)) for numbers in (sizes.depths, sizes.num_heads))
    lines = [
        f"Swin: {sizes.embed_dim} channels, {blocks} blocks, {heads} heads, windows of {sizes.window_size} cells",
        f"text: {sizes.text_layers} layers of width {sizes.text_width}, sentences of width {sizes.sentence_width}, "
        f"{sizes.vocab_size} tokens, {sizes.context_length} positions",
        f"language path: {sizes.query_layers} layers of width {sizes.query_width}, {sizes.ffn_width} hidden units",
        f"input: {pretrained.input_size} px, phrases of {sizes.word_len} tokens",
    ]
    if not any(all(getattr(sizes, name) == value for name, value in swin.items()) for swin in SWIN_SIZES.values()):
        lines.append(f"note: no published Swin has {sizes.embed_dim} channels, {blocks} blocks and {heads} heads")
    for name in _LIKE_RELEASED:
        found, wanted = getattr(sizes, name), getattr(released, name)
        if found != wanted:
            lines.append(f"note: {name} is {found}, in the released model {wanted}")
    return lines


if __name__ == "__main__":
    run_command(main)
