"""What a conversion shows on the console: how far it is, and a closing table of what it has written."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from unilseg_jax.input_pipeline.conversion import QUARANTINE_FILE, SplitCounts, differences, read_report
from unilseg_jax.input_pipeline.raw_files import shown_name


def say(console: Console, text: str) -> None:
    """Prints a line as it is: a path may hold what would be taken for markup or the name of a pictogram."""
    console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)


def shown(path: Path) -> str:
    """Returns a path as text that can be printed; bytes that are not UTF-8 become escapes."""
    return str(Path(*(shown_name(Path(part)) or part for part in path.parts)))


@contextlib.contextmanager
def progress(console: Console, title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a bar for each part of a conversion that is reported, as part, number done and number in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as display:

        def show(part: str, done: int, total: int) -> None:
            if part not in bars:
                bars[part] = display.add_task(f"{title} {part}", total=total)
            display.update(bars[part], completed=done)

        yield show


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
            " / ".join(_size(size) for size in (wanted.pictures, wanted.objects, wanted.phrases)) if wanted else "-",
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
        say(console, f"skipped, with reasons: {directory / QUARANTINE_FILE}")
    say(console, f"written to {directory}")


def _size(size: int | None) -> str:
    return "?" if size is None else f"{size:,}"
