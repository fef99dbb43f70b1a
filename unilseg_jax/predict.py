"""Command: segments pictures by phrases; writes masks, overlays and predictions.json.

Usage: python -m unilseg_jax.predict --checkpoint C --image I [J ...] --phrase P [--phrase Q ...]
    --output DIR [--resize letterbox|stretch] [--threshold T | --presence FILE]
"""

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from unilseg_jax.command_line import OneLineParser, path_text
from unilseg_jax.errors import UserError, checked_file, run_command
from unilseg_jax.input_pipeline.images import read_image
from unilseg_jax.input_pipeline.phrases import check_phrase
from unilseg_jax.interop.output import check_parents, gone_on_failure
from unilseg_jax.ops.masks import mask_to_rle
from unilseg_jax.ops.overlay import draw_overlay
from unilseg_jax.text.tokenizer import PhraseCutWarning, kept_text

if TYPE_CHECKING:  # main imports it once everything else was checked: it brings JAX
    from unilseg_jax.segmenter import Segmenter

RESULTS_FILE = "predictions.json"
_NAME_LENGTH = 60
_TEMPORARY = ".predict-"


def main(argv: Sequence[str] | None = None) -> None:
    """Checks everything that can be checked, loads the model, then segments picture by picture.

    Raises:
        UserError: a picture, a phrase, the checkpoint or the output folder cannot be used.
    """
    arguments = _parser().parse_args(argv)
    output = Path(arguments.output)
    _check(arguments)

    with gone_on_failure(output):
        _make_folder(output)
        entries = _segment_all(arguments, output)
    _print_table(entries, output)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m unilseg_jax.predict",
        description=__doc__.splitlines()[0].removeprefix("Command: "),
        epilog="The confidence (mean_confidence in predictions.json) is the mean probability inside the mask; it does "
        "not say whether anything of the phrase is there, which --presence does.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=path_text,
        metavar="C",
        help="a .pth or .safetensors file, the directory of a training run, or what convert wrote",
    )
    parser.add_argument(
        "--image", required=True, type=path_text, action="extend", nargs="+", metavar="I", help="pictures; repeatable"
    )
    parser.add_argument("--phrase", required=True, action="append", metavar="P", help="a phrase; repeatable")
    parser.add_argument("--output", required=True, type=path_text, metavar="DIR", help="the folder to write to")
    parser.add_argument(
        "--resize",
        choices=("letterbox", "stretch"),
        default="letterbox",
        help="how the picture becomes square: as released (default), or as in the paper",
    )
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument(
        "--threshold",
        type=_threshold,
        metavar="T",
        help="probability above which a pixel belongs to the mask (default: 0.35 letterbox, 0.5 stretch)",
    )
    cut.add_argument(
        "--presence",
        type=path_text,
        metavar="FILE",
        help="what evaluate --fit-presence wrote for this checkpoint: what is probably not in the picture at all gets "
        "an empty mask, and each phrase its probability to be there",
    )
    return parser


def _threshold(text: str) -> float:
    """Returns a number strictly between 0 and 1."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what would fail later."""
    for phrase in arguments.phrase:
        check_phrase(phrase)
    if not Path(arguments.checkpoint).exists():
        raise UserError(f"no such checkpoint: {arguments.checkpoint!r}; check the path")
    if arguments.presence:
        checked_file(arguments.presence, "presence file")
    for path in arguments.image:
        read_image(path)


def _presence(arguments: argparse.Namespace, segmenter: "Segmenter") -> Callable[[np.ndarray, float], float]:
    """Returns what tells the probability that something is there of a map and its threshold."""
    from unilseg_jax.evaluation.presence import PresenceModel, features_of
    from unilseg_jax.evaluation.protocols import PROTOCOLS

    model = PresenceModel.of_weights(arguments.presence, segmenter.weights_sha256)
    protocol = next(name for name, each in PROTOCOLS.items() if each.resize == arguments.resize)
    model.check_protocol(protocol)
    return lambda probs, threshold: float(model.score(features_of(probs, threshold)[None], protocol)[0])


def _make_folder(output: Path) -> None:
    """Makes the output folder and tries whether it takes files."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {str(output)!r} is a file, a folder is wanted")
    check_parents(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {str(output)!r}: {error.strerror or error}") from None
    try:
        with tempfile.TemporaryDirectory(dir=output, prefix=_TEMPORARY) as folder:
            (Path(folder) / "trial").touch()
    except OSError as error:
        raise UserError(
            f"cannot write into the folder {str(output)!r}: {error.strerror or error}; name another one"
        ) from None
    if (output / RESULTS_FILE).is_dir():
        raise UserError(f"{str(output / RESULTS_FILE)!r} is a folder, the results shall be written there; remove it")


def _warn_of_cut_phrases(phrases: Sequence[str], word_len: int) -> None:
    """Says once what is read of each phrase that is too long."""
    for phrase in dict.fromkeys(phrases):
        kept = kept_text(phrase, word_len)
        if kept is not None:
            print(
                f"warning: the phrase {phrase!r} is longer than {word_len - 2} tokens; kept: {kept!r}",
                file=sys.stderr,
            )


def _segment_all(arguments: argparse.Namespace, output: Path) -> list[dict]:
    """Loads the model, segments picture by picture, writes all results and returns them."""
    # Imported here: JAX takes seconds, a mistake in the arguments should not.
    from unilseg_jax.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(arguments.checkpoint)
    presence = _presence(arguments, segmenter) if arguments.presence else None
    _warn_of_cut_phrases(arguments.phrase, segmenter.architecture.word_len)
    taken = {path.name.casefold() for path in map(Path, arguments.image) if _same(path.parent, output)}
    taken.add(RESULTS_FILE)
    entries: list[dict] = []
    console = Console(stderr=True, emoji=False)
    several = len(arguments.image) > 1
    for path in track(arguments.image, "pictures", console=console, disable=not several):
        entries += _segment_picture(segmenter, presence, path, arguments, output, taken)
    with _replacing(output / RESULTS_FILE) as temporary:
        report = {"checkpoint": arguments.checkpoint, "predictions": entries}
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return entries


def _segment_picture(
    segmenter: "Segmenter",
    presence: Callable[[np.ndarray, float], float] | None,
    path: str,
    arguments: argparse.Namespace,
    output: Path,
    taken: set[str],
) -> list[dict]:
    """Segments one picture and writes its files.

    Args:
        segmenter: the model.
        presence: see `_presence`; None believes every mask.
        path: of the picture, as it was given.
        arguments: of the command.
        output: the folder to write to.
        taken: file names that may not be used; grows.

    Returns:
        One entry of the results per phrase.
    """
    image = read_image(path)
    with warnings.catch_warnings():
        # Said once for all pictures by `_warn_of_cut_phrases`.
        warnings.simplefilter("ignore", PhraseCutWarning)
        prediction = segmenter.predict(image, arguments.phrase, resize=arguments.resize, threshold=arguments.threshold)
    there = [presence(probs, prediction.threshold) for probs in prediction.probs] if presence else None
    if there is not None:
        prediction.masks[np.array(there) < 0.5] = False
    stem = _file_part(Path(path).stem) or "image"
    overlay_name = _unique(f"{stem}_overlay", taken)
    _write_picture(output / overlay_name, draw_overlay(image, prediction.masks, prediction.phrases))
    entries = []
    for number, (phrase, probs, mask) in enumerate(
        zip(prediction.phrases, prediction.probs, prediction.masks, strict=True), 1
    ):
        mask_name = _unique(f"{stem}_{number:02}_{_file_part(phrase) or 'phrase'}", taken)
        _write_picture(output / mask_name, mask.astype(np.uint8) * 255)
        kept = kept_text(phrase, segmenter.architecture.word_len)
        entries.append(
            {
                "image": path,
                "phrase": phrase,
                "phrase_read": phrase if kept is None else kept,
                "segmentation": {
                    "size": list(mask.shape),
                    "counts": mask_to_rle(mask.astype(np.uint8)).decode("ascii"),
                },
                "area": int(mask.sum()),
                "mean_confidence": float(probs[mask].mean(dtype=np.float64)) if mask.any() else None,
                **({} if there is None else {"presence": there[number - 1]}),
                "threshold": prediction.threshold,
                "resize": arguments.resize,
                "mask_file": mask_name,
                "overlay_file": overlay_name,
            }
        )
    return entries


def _file_part(text: str) -> str:
    """Returns what of a text can stand in a file name on any system; may be empty."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\W+", "-", ascii_text, flags=re.ASCII).strip("-")[:_NAME_LENGTH].strip("-")


def _unique(stem: str, taken: set[str]) -> str:
    """Returns a PNG file name that is not taken, also where case is ignored, and takes it."""
    name, number = f"{stem}.png", 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}_{number}.png"
    taken.add(name.casefold())
    return name


def _same(first: Path, second: Path) -> bool:
    """Whether two folders are one."""
    return first.resolve() == second.resolve()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block ends well."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_TEMPORARY) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def _write_picture(path: Path, picture: UInt8[np.ndarray, "h w *c"]) -> None:
    with _replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)


def _printable(name: str) -> str:
    """Returns a name of a file with question marks for bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _print_table(entries: list[dict], output: Path) -> None:
    """Prints one row per picture and phrase."""
    with_presence = any("presence" in entry for entry in entries)
    table = Table("image", "phrase", "mask px", "confidence", *(["presence"] if with_presence else []))
    for entry in entries:
        confidence = entry["mean_confidence"]
        table.add_row(
            escape(_printable(Path(entry["image"]).name)),
            escape(entry["phrase_read"]),
            str(entry["area"]),
            "nothing found" if confidence is None else f"{confidence:.3f}",
            *([f"{entry['presence']:.3f}"] if with_presence else []),
        )
    console = Console(emoji=False)
    console.print(table)
    console.print(f"written to {_printable(str(output))}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
