"""Command: what is there of all data sets, what is missing and where to get it, and whether the installation is sound.

Usage: python -m unilseg_jax.doctor --data DIR [--raw DIR]
       python -m unilseg_jax.doctor --data DIR --preview NAME[/CONFIG][:SPLIT] [--count N] [--output FILE.png]

Exit code 1 says that a prepared data set is damaged or may not be read, or that a needed package is missing.
"""

import argparse
import importlib.metadata
import io
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unilseg_jax.command_line import OneLineParser, path_text, positive_int
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.input_pipeline import contact_sheet
from unilseg_jax.input_pipeline.catalogue import builder_names, load_builder
from unilseg_jax.input_pipeline.conversion import SplitCounts
from unilseg_jax.input_pipeline.inspection import SetState, inspect_sets
from unilseg_jax.input_pipeline.prepared import find_set, split_sizes
from unilseg_jax.input_pipeline.raw_files import shown_name
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import SCHEMA_VERSION
from unilseg_jax.version import __version__

PACKAGE = "unilseg_jax"
COUNT = 12
"""Pictures on a contact sheet, unless told otherwise."""
EXTRAS = ("torch", "hf", "ray")
"""Those that a user of the package may want; `cuda` and `tpu` show as devices."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, or with the process's arguments.

    Raises:
        UserError: a folder, data set or split is not there, or the picture cannot be written.
        SystemExit: code 1, something is broken.
    """
    arguments = _arguments(argv)
    console = _console()
    data_dir = _folder(arguments.data, "--data is the folder that prepare was given as --out")
    if arguments.preview is not None:
        preview(arguments.preview, data_dir, arguments.count or COUNT, arguments.output)
        return
    sound = show_installation(console, data_dir)
    raw_folders = []
    if arguments.raw is not None:
        raw = _folder(arguments.raw, "--raw is the folder with the downloaded files")
        raw_folders = [raw, *sorted(path for path in raw.iterdir() if path.is_dir())]
    sound &= show_sets(console, data_dir, raw_folders)
    if not sound:
        raise SystemExit(1)


def show_installation(console: Console, data_dir: Path) -> bool:
    """Prints versions, devices and free disk space.

    Returns:
        Whether all that is needed is there.
    """
    table = Table("installation", "found", "wanted")
    sound = True
    table.add_row("Python", platform.python_version(), ">=3.11")
    table.add_row(PACKAGE, f"{__version__}, records of schema version {SCHEMA_VERSION}", "")
    for requirement, extra in _requirements():
        found = _version(requirement.name)
        fits = found is not None and requirement.specifier.contains(found, prereleases=True)
        sound &= fits or bool(extra)
        shown = found if fits else f"[{'yellow' if extra else 'red'}]{found or 'not installed'}[/]"
        table.add_row(requirement.name, shown, f"{requirement.specifier}{f' (extra {extra})' if extra else ''}")
    devices, works = _devices()
    table.add_row("devices of JAX", devices if works else f"[red]{devices}[/]", "")
    disk = shutil.disk_usage(data_dir)
    table.add_row("free disk in --data", f"{disk.free / 1e9:,.0f} of {disk.total / 1e9:,.0f} GB", "")
    console.print(table)
    return sound and works


def show_sets(console: Console, data_dir: Path, raw_folders: Sequence[Path]) -> bool:
    """Prints the table of all data sets, and what to do about those that are missing.

    Args:
        console: where to print.
        data_dir: folder of all prepared data sets.
        raw_folders: folders that may hold raw files; none leaves out the column.

    Returns:
        Whether every prepared set may be read and none is damaged.
    """
    builders = {name: load_builder(name) for name in builder_names()}
    states = inspect_sets(builders, data_dir, raw_folders)
    table = Table(
        "data set", *(["raw files"] if raw_folders else []), "prepared", "schema", box=box.SIMPLE, padding=(0, 0)
    )
    table.add_column("pictures of published", justify="right", no_wrap=True)
    table.add_column("skipped", justify="right")
    for name, configs in states.items():
        # The name stands above its configurations, so that the table fits a narrow terminal.
        table.add_row(f"[bold]{name}[/]")
        for state in configs:
            raw = [escape(shown_name(state.raw)) if state.raw else "-"] if raw_folders else []
            table.add_row(f"  {state.config}", *raw, *_cells(state))
    console.print(table)
    _show_lists(console, data_dir, builders, states)
    return not any(state.damage or state.denied for configs in states.values() for state in configs)


def _show_lists(
    console: Console, data_dir: Path, builders: Mapping[str, Any], states: Mapping[str, Sequence[SetState]]
) -> None:
    """Prints what is wrong, what is missing and what to do about it."""
    every = [state for configs in states.values() for state in configs]
    _say(console, "damaged; prepare them again with --overwrite:", (state.damage for state in every if state.damage))
    _say(console, "not to be read by you:", (state.denied for state in every if state.denied))
    _say(
        console,
        "not as published:",
        (f"{state.name}/{state.config} {line}" for state in every if state.usable for line in state.off),
    )
    _say(
        console,
        "without an index, which is made when they are first trained on:",
        (f"{state.name}/{state.config}: {', '.join(state.without_index)}" for state in every if state.without_index),
    )
    _say(
        console,
        "left by a conversion that was interrupted or refused:",
        (str(path) for state in every for path in state.left_over),
    )
    _say(
        console,
        "there, but not prepared:",
        (
            f"python -m unilseg_jax.prepare {state.name} --config {state.config} --raw {_quoted(state.raw)} "
            f"--out {_quoted(data_dir)}"
            for state in every
            if state.raw and state.convertible
        ),
    )
    _say(
        console,
        "there, but without pictures; put them into one of these folders, or name theirs with prepare's --pictures:",
        (
            f"{state.name}/{state.config} in {_quoted(state.raw)}: {', '.join(state.pictures_wanted)}"
            for state in every
            if state.raw and state.pictures_wanted and not (state.usable or state.denied)
        ),
    )
    _say(
        console,
        "to fetch (how it must lie: data/NAME/README.md):",
        (f"{', '.join(state.missing)}: {state.fetch}" for state in every if state.missing),
    )
    _say(console, "licences:", (f"{name}: {builder.LICENCE}" for name, builder in builders.items()))


def preview(wanted: str, data_dir: Path, count: int, output: str | None) -> Path:
    """Writes a contact sheet of a prepared data set.

    Args:
        wanted: `NAME[/CONFIG][:SPLIT]`; without a split, `train` or else the first one.
        data_dir: folder of all prepared data sets.
        count: how many pictures, evenly spread over the split.
        output: PNG to write; None names it after data set and split, in the current folder.

    Returns:
        The file.

    Raises:
        UserError: the data set or split is not there, a record is broken, or the file cannot be written.
    """
    name, _, split = wanted.partition(":")
    directory = find_set(name, data_dir)
    if not split:
        splits = list(split_sizes(directory))
        split = "train" if "train" in splits else splits[0]
    source = open_source(name, data_dir=data_dir, split=split)
    set_name = "_".join(dict.fromkeys(directory.relative_to(data_dir).parts[:-1]))
    path = Path(output or f"{set_name}_{split}.png")
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {str(path)!r} must end in .png")
    numbers = contact_sheet.spread(len(source), count)
    try:
        contact_sheet.write_sheet(path, source, numbers)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}; name another --output") from error
    print(f"{len(numbers)} of {len(source)} pictures of {name}:{split} drawn to {path}")
    return path


def _cells(state: SetState) -> list[str]:
    """Returns the table's cells from `prepared` to `skipped`."""
    if state.directory is None:
        return ["-", "", "", ""]
    if state.damage:
        return ["[red]damaged[/]", str(state.schema), "", ""]
    if state.denied:
        return ["[red]denied[/]", str(state.schema), "", ""]
    if not state.usable:
        return ["[yellow]outdated[/]", f"{state.schema}, {SCHEMA_VERSION} is wanted", "", ""]
    lines = []
    for split in dict.fromkeys([*state.published, *state.counts]):
        found = state.counts.get(split, SplitCounts()).pictures
        wanted = state.published[split].pictures if split in state.published else None
        if found or wanted:
            lines.append(f"{split} {found:,}" + ("" if wanted is None else f" of {wanted:,}"))
    complete = "[yellow]incomplete[/]" if state.off else "complete" if state.published else "yes"
    skipped = sum(counts.skipped for counts in state.counts.values())
    return [complete, str(state.schema), "\n".join(lines), f"{skipped:,}"]


def _say(console: Console, heading: str, lines: Iterable[str]) -> None:
    """Prints a heading with its lines, nothing if there are none."""
    lines = list(lines)
    if lines:
        console.print(f"\n[bold]{heading}[/]")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def _console() -> Console:
    """Opens the console so that no name can make it fail: what the encoding lacks is printed as an escape."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(file=sys.stdout, emoji=False)


def _quoted(path: Path) -> str:
    return shlex.quote(os.fsencode(path).decode("utf-8", "backslashreplace"))


def _requirements() -> list[tuple[Requirement, str]]:
    """Returns what the installed package asks for on this machine, with the extra that asks for it or ""."""
    try:
        texts = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        for extra in ("", *EXTRAS):
            if marker is None or marker.evaluate({"extra": extra}):
                found.append((requirement, extra))
                break
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> tuple[str, bool]:
    """Returns the devices in words, and whether JAX could be started."""
    try:
        import jax

        devices = jax.devices()
    # A driver that does not fit the installed JAX is reported in many ways.
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__, False
    kinds = sorted({device.device_kind for device in devices})
    return f"{len(devices)} {devices[0].platform} ({', '.join(kinds)})", True


def _folder(path: str, meaning: str) -> Path:
    if not Path(path).is_dir():
        what = f"{path!r} is a file, a folder is wanted" if Path(path).exists() else f"no such folder: {path!r}"
        raise UserError(f"{what}; {meaning}")
    return Path(path)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m unilseg_jax.doctor", description=__doc__.splitlines()[0].removeprefix("Command: ")
    )
    parser.add_argument("--data", type=path_text, required=True, metavar="DIR", help="folder of all prepared data sets")
    parser.add_argument(
        "--raw", type=path_text, metavar="DIR", help="folder of downloaded files, or one whose folders hold them"
    )
    parser.add_argument(
        "--preview",
        metavar="NAME[/CONFIG][:SPLIT]",
        help="only write a contact sheet of this data set; without a split, of train or else the first one",
    )
    parser.add_argument("--count", type=positive_int, metavar="N", help=f"pictures on it; default {COUNT}")
    parser.add_argument(
        "--output", type=path_text, metavar="FILE.png", help="the sheet; default: NAME_CONFIG_SPLIT.png"
    )
    arguments = parser.parse_args(argv)
    if arguments.preview is None and (arguments.output or arguments.count):
        parser.error("--output and --count are of --preview, which is missing")
    return arguments


if __name__ == "__main__":
    run_command(main)
