"""Command: converts a downloaded data set into triplet records.

Usage: python -m unilseg_jax.prepare NAME --raw DIR --out DIR [--config CONFIG ...]
"""

import argparse
import contextlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import unilseg_jax
from unilseg_jax.command_line import OneLineParser
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.input_pipeline.conversion import (
    QUARANTINE_FILE,
    Conversion,
    SplitCounts,
    differences,
    read_report,
)

BUILDERS = Path(unilseg_jax.__file__).parents[1] / "data"


def main(argv: Sequence[str] | None = None) -> None:
    """Converts the configurations that were asked for, or all that the raw folder holds.

    Raises:
        UserError: a folder, file or name is missing or wrong.
    """
    arguments = _arguments(argv)
    raw, out = Path(arguments.raw), Path(arguments.out)
    if not raw.is_dir():
        raise UserError(f"no such folder: {str(raw)!r}; --raw is the folder with the downloaded files")
    if out.exists() and not out.is_dir():
        raise UserError(f"{str(out)!r} is a file, a folder is wanted for --out")
    builder_class = load_builder(arguments.name)
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
    console = Console(file=sys.stdout)
    for config in configs:
        directory = convert(
            builder_class,
            config,
            raw,
            out,
            console,
            pictures=arguments.pictures,
            overwrite=arguments.overwrite,
            max_skipped=arguments.max_skipped,
        )
        show_report(console, f"{arguments.name}/{config}", directory)


def load_builder(name: str) -> type:
    """Loads `data/NAME/NAME_dataset_builder.py` of the checkout this package runs from.

    The module is loaded by its place, in a package of its own name, so that no top-level package called
    `data` or `refcoco` gets in the way of the user's.

    Args:
        name: of the data set.

    Returns:
        The builder's class.

    Raises:
        UserError: there is no such builder.
    """
    file = BUILDERS / name / f"{name}_dataset_builder.py"
    if not BUILDERS.is_dir():
        raise UserError(
            f"no folder {str(BUILDERS)!r}: the builders lie in data/ of the repository; run from a checkout "
            "(pip install -e .)"
        )
    if not name.isidentifier() or not file.is_file():
        names = sorted(path.parent.name for path in BUILDERS.glob("*/*_dataset_builder.py"))
        raise UserError(f"no builder for the data set {name!r}; there are: {', '.join(names) or 'none'}")
    package = f"unilseg_jax_data_{name}"
    if package not in sys.modules:
        _load_module(package, file.parent / "__init__.py", [str(file.parent)])
    module = f"{package}.{file.stem}"
    if module not in sys.modules:
        _load_module(module, file, None)
    return sys.modules[module].Builder


def convert(
    builder_class: type,
    config: str,
    raw: Path,
    out: Path,
    console: Console,
    *,
    pictures: str | None = None,
    overwrite: bool = False,
    max_skipped: float = 0.01,
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
        max_skipped: share of the set that may be broken.

    Returns:
        The folder of the prepared data set; until all is written it has another name.
    """
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    directory = Path(builder_class(data_dir=os.fspath(out), config=config).data_dir)
    if directory.exists() and not overwrite:
        console.print(f"already prepared: {directory} (--overwrite converts it again)", soft_wrap=True)
        return directory
    for left in directory.parent.glob(f"incomplete.*_{directory.name}"):
        # It may also belong to a conversion that runs now, so it is not deleted here.
        console.print(f"an interrupted conversion left {left}; delete it if none is running", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        _set_aside(directory),
        tempfile.TemporaryDirectory() as downloads,
        # tfds wants a folder for downloads and prints their sizes; there are none here.
        contextlib.redirect_stdout(io.StringIO()),
    ):
        bars: dict[str, int] = {}

        def show(split: str, done: int, total: int) -> None:
            if split not in bars:
                bars[split] = progress.add_task(f"{builder.name}/{config} {split}", total=total)
            progress.update(bars[split], completed=done)

        builder = builder_class(data_dir=os.fspath(out), config=config)
        builder.conversion = Conversion(on_picture=show)
        builder.pictures = Path(pictures) if pictures is not None else None
        builder.max_skipped = max_skipped
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(raw)),
            file_format="array_record",
        )
    return directory


@contextlib.contextmanager
def _set_aside(directory: Path) -> Iterator[None]:
    """Keeps a data set that is to be replaced under another name until the new one is complete."""
    if not directory.exists():
        yield
        return
    old = directory.with_name(f"{directory.name}.old")
    if old.exists():
        shutil.rmtree(old)
    directory.rename(old)
    try:
        yield
    except BaseException:
        old.rename(directory)
        raise
    shutil.rmtree(old)


def show_report(console: Console, title: str, directory: Path) -> None:
    """Prints the closing table, what is off from the published counts, and where the skipped are listed."""
    counts, published = read_report(directory)
    table = Table("split", title=title, title_justify="left")
    for heading in ("pictures", "objects", "phrases", "published", "skipped"):
        table.add_column(heading, justify="right")
    for split in dict.fromkeys([*published, *counts]):
        found, wanted = counts.get(split, SplitCounts()), published.get(split)
        table.add_row(
            split or "(none)",
            *(f"{size:,}" for size in (found.pictures, found.objects, found.phrases)),
            " / ".join(_shown(size) for size in (wanted.pictures, wanted.objects, wanted.phrases)) if wanted else "-",
            f"{found.skipped:,}",
        )
    console.print(table)
    off = differences(counts, published)
    if published and not off:
        console.print("complete: every count is as published")
    elif off:
        lines = "\n".join(f"  {line}" for line in off)
        console.print(f"warning: the set is not as published:\n{lines}", style="yellow", highlight=False)
    if sum(found.skipped for found in counts.values()):
        console.print(f"skipped, with reasons: {directory / QUARANTINE_FILE}", soft_wrap=True, highlight=False)
    console.print(f"written to {directory}", soft_wrap=True, highlight=False)


def _shown(size: int | None) -> str:
    return "?" if size is None else f"{size:,}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m unilseg_jax.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="data set, a folder of data/ such as refcoco")
    parser.add_argument("--raw", required=True, metavar="DIR", help="folder of the downloaded files")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of all prepared data sets")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="CONFIG",
        help="configuration such as refcocog; may be given several times; default: all that --raw holds",
    )
    parser.add_argument("--pictures", metavar="DIR", help="folder of the pictures, if they are not in --raw")
    parser.add_argument(
        "--max-skipped",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="share of the set that may be broken before the conversion is an error; default 0.01",
    )
    parser.add_argument("--overwrite", action="store_true", help="convert again what is prepared already")
    return parser.parse_args(argv)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def _load_module(name: str, file: Path, search: list[str] | None) -> None:
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=search)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


if __name__ == "__main__":
    run_command(main)
