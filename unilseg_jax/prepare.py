"""Command: converts a downloaded data set into triplet records.

Usage: python -m unilseg_jax.prepare NAME --raw DIR --out DIR [--config CONFIG ...]
       python -m unilseg_jax.prepare NAME --synthetic N --raw DIR [--out DIR]
"""

import argparse
import contextlib
import functools
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from rich.console import Console

from unilseg_jax.command_line import OneLineParser, path_text, positive_int
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.input_pipeline.builder import MAX_SKIPPED, TripletBuilder
from unilseg_jax.input_pipeline.catalogue import builder_names, load_builder, load_stand_in
from unilseg_jax.input_pipeline.conversion import Conversion
from unilseg_jax.input_pipeline.conversion_report import progress, say, show_report, shown
from unilseg_jax.input_pipeline.engines import ENGINES
from unilseg_jax.input_pipeline.output_folder import LOCK_FILE, locked, one_line_errors, recover, set_aside
from unilseg_jax.input_pipeline.sharded import Job, converted_shards


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Converts the configurations that were asked for, or all that the raw folder holds.

    Raises:
        UserError: a folder, file or name is missing or wrong; of several configurations, a line for each that was
            refused, once the others are converted.
    """
    arguments = _arguments(argv)
    raw, out = Path(arguments.raw), Path(arguments.out) if arguments.out else None
    console = Console(file=sys.stdout)
    _check_name(arguments.name)
    builder_class = load_builder(arguments.name)
    if out is not None:
        _check_out(out, arguments.workers)
    if arguments.synthetic is not None:
        _write_stand_in(arguments.name, raw, arguments.synthetic)
        say(console, f"a stand-in of {arguments.name} is written to {shown(raw)}")
        if out is None:
            return
    if out is None:
        raise UserError("--out is missing: the folder of all prepared data sets (only --synthetic goes without it)")
    if not raw.is_dir():
        what = f"{str(raw)!r} is a file, a folder is wanted" if raw.exists() else f"no such folder: {str(raw)!r}"
        raise UserError(f"{what}; --raw is the folder with the downloaded files")
    configs, refused = _wanted_configs(builder_class, raw, arguments), {}
    out.mkdir(parents=True, exist_ok=True)
    for config in configs:
        try:
            directory = convert(
                builder_class,
                config,
                raw,
                out,
                console,
                pictures=_real(Path(arguments.pictures)) if arguments.pictures else None,
                overwrite=arguments.overwrite,
                max_skipped=arguments.max_skipped,
                workers=arguments.workers,
                engine=arguments.engine,
                shard_items=arguments.shard_items,
            )
            show_report(console, f"{arguments.name}/{config}", directory)
        except UserError as error:
            refused[config] = str(error)
    if len(configs) == 1 and refused:
        raise UserError(refused[configs[0]])
    if refused:
        lines = (f"{arguments.name}/{config}: {reason}" for config, reason in refused.items())
        raise UserError("\nerror: ".join(lines))


def _check_name(name: str) -> None:
    """Refuses a data set that is named with its configuration, as the other commands name it."""
    base, _, config = name.partition("/")
    if config and base in builder_names():
        raise UserError(f"no builder for the data set {name!r}; say prepare {base} --config {config}")


def _check_out(out: Path, workers: int | None) -> None:
    """Refuses a folder that ArrayRecord could not write to."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{str(out)!r} is a file, a folder is wanted for --out")
    # With workers, the place that a link leads to counts.
    named = _real(out) if workers else out
    if shown(named) != str(named):
        raise UserError(
            f"--out is {shown(named)!r}, which is not UTF-8; ArrayRecord wants a name that is, so choose another"
        )


def _real(path: Path) -> Path:
    """Returns an absolute path, as the workers need it."""
    # Not `Path.resolve`, for which a link that leads to itself is a RuntimeError.
    return Path(os.path.realpath(path))


def _write_stand_in(name: str, raw: Path, count: int) -> None:
    """Writes an imitation of a data set into a folder that is new or empty."""
    stand_in = load_stand_in(name)
    if raw.exists() and (not raw.is_dir() or any(raw.iterdir())):
        raise UserError(f"{str(raw)!r} is there and is no empty folder; a stand-in is not mixed with other files")
    raw.mkdir(parents=True, exist_ok=True)
    try:
        stand_in.write(raw, count)
    except BaseException:
        # The folder was empty, and half of a set would pass for a whole one.
        for path in raw.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _wanted_configs(builder_class: type, raw: Path, arguments: argparse.Namespace) -> list[str]:
    """Returns the configurations that are asked for, or those that the raw folder holds."""
    found = builder_class.found_configs(raw)
    known = [config.name for config in builder_class.BUILDER_CONFIGS]
    unknown = [name for name in arguments.config if name not in known]
    if unknown:
        raise UserError(f"{arguments.name} has no configuration {unknown[0]!r}; it has {', '.join(known)}")
    configs = list(dict.fromkeys(arguments.config)) or found
    missing = [name for name in configs if name not in found]
    if not configs or missing:
        what = f"the configuration {missing[0]!r}" if missing else "any configuration"
        raise UserError(
            f"{str(raw)!r} does not hold {what} of {arguments.name}; wanted: {builder_class.wanted_files()} "
            f"(see data/{arguments.name}/README.md)"
        )
    return configs


@one_line_errors()
def convert(
    builder_class: type,
    config: str,
    raw: Path,
    out: Path,
    console: Console,
    *,
    pictures: Path | None = None,
    overwrite: bool = False,
    max_skipped: float | None = None,
    workers: int | None = None,
    engine: str = "local",
    shard_items: int | None = None,
) -> Path:
    """Converts one configuration with a progress bar.

    Args:
        builder_class: the builder.
        config: name of the configuration.
        raw: folder of the downloaded files.
        out: folder of all prepared data sets.
        console: where the progress is shown.
        pictures: folder of the pictures, if they are not in the raw folder.
        overwrite: convert again what is there already.
        max_skipped: share of the set that may be broken; None takes what the builder says.
        workers: processes that convert shard by shard; None converts in this process, without shards.
        engine: one of `ENGINES`, runs the workers.
        shard_items: items per shard, None takes what the builder says.

    Returns:
        The folder of the prepared data set; until all is written it has another name.

    Raises:
        UserError: it cannot be converted or written, or another process does so.
    """
    directory = Path(builder_class(data_dir=os.fspath(out), config=config).data_dir)
    work = _real(directory.with_name(f"unfinished_{directory.name}"))
    max_skipped = builder_class.max_skipped if max_skipped is None else max_skipped
    with contextlib.ExitStack() as held:
        # What is prepared may lie where nothing can be written.
        if overwrite or not directory.exists():
            held.enter_context(locked(work))
        if recovered := recover(directory):
            say(console, recovered)
        if directory.exists() and not overwrite:
            say(console, f"already prepared: {directory} (--overwrite converts it again)")
            return directory
        _name_left_over(console, directory, work, workers)
        show, gather = held.enter_context(progress(console, f"{builder_class.name}/{config}")), None
        if workers:
            folders = {"raw": _real(raw), "out": _real(out), "pictures": pictures}
            job = Job(name=builder_class.name, config=config, shard_items=shard_items, **folders)
            on_shard = functools.partial(show, "shards")
            gather = held.enter_context(converted_shards(job, work, ENGINES[engine], workers, on_shard, max_skipped))
        with set_aside(directory):
            builder = builder_class(data_dir=os.fspath(out), config=config)
            builder.conversion = Conversion(on_picture=show)
            builder.pictures, builder.gather = pictures, gather
            builder.max_skipped = max_skipped
            _run(builder, raw)
    return directory


def _name_left_over(console: Console, directory: Path, work: Path, workers: int | None) -> None:
    """Says what interrupted conversions left beside the place of a data set."""
    # With workers, what is unfinished is not left over: they go on with it.
    unfinished = [work] if not workers and os.listdir(work) != [LOCK_FILE] else []
    for left in (*directory.parent.glob(f"incomplete.*_{directory.name}"), *unfinished):
        # Where no locks are known, it may belong to a conversion that runs now, so it is not deleted here.
        say(console, f"an interrupted conversion left {left}; delete it if none is running")


def _run(builder: TripletBuilder, raw: Path) -> None:
    """Lets a builder write its data set; nothing is downloaded."""
    tfds.disable_progress_bar()
    with (
        # tfds wants a folder for downloads and prints their sizes; there are none here.
        tempfile.TemporaryDirectory() as downloads,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(raw)),
            file_format="array_record",
        )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m unilseg_jax.prepare", description=__doc__.splitlines()[0].removeprefix("Command: ")
    )
    parser.add_argument("name", help="data set, a folder of data/ such as refcoco")
    parser.add_argument("--raw", type=path_text, required=True, metavar="DIR", help="folder of the downloaded files")
    parser.add_argument("--out", type=path_text, metavar="DIR", help="folder of all prepared data sets")
    parser.add_argument(
        "--synthetic",
        type=positive_int,
        metavar="N",
        help="first write a stand-in into --raw, a new or empty folder: N drawn pictures per split, in files such as "
        "the data set's own; without --out that is all",
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="CONFIG",
        help="configuration such as refcocog; may be given several times; default: all that --raw holds",
    )
    parser.add_argument("--pictures", type=path_text, metavar="DIR", help="folder of the pictures, if not in --raw")
    parser.add_argument(
        "--max-skipped",
        type=_share,
        metavar="SHARE",
        help=f"share of the set that may be broken before the conversion is an error; default {MAX_SKIPPED}, or what "
        "the set's builder says",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="convert shard by shard in N processes; if it is stopped, the same command goes on with the missing "
        "shards; default: in one process, picture after picture",
    )
    parser.add_argument(
        "--engine",
        choices=sorted(ENGINES),
        default="local",
        help="what runs the --workers: processes of this machine (default), or the Ray cluster that RAY_ADDRESS names, "
        "which must see the same folders",
    )
    parser.add_argument(
        "--shard-items",
        type=positive_int,
        metavar="N",
        help="items of the builder (mostly pictures) per shard, one file each; default: the builder's own",
    )
    parser.add_argument("--overwrite", action="store_true", help="convert again what is prepared already")
    arguments = parser.parse_args(argv)
    if not arguments.workers and (arguments.engine != "local" or arguments.shard_items):
        parser.error("--engine and --shard-items are of conversions with --workers, which is missing")
    return arguments


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


if __name__ == "__main__":
    run_command(main)
