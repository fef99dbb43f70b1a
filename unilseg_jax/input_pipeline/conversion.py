"""What every builder under `data/` keeps of a conversion: counts per split, and what it skipped and why."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from unilseg_jax.errors import UserError, reason_of
from unilseg_jax.input_pipeline.triplet import SCHEMA_VERSION

QUARANTINE_FILE = "quarantine.jsonl"
REPORT_FILE = "conversion.json"


@dataclasses.dataclass(kw_only=True)
class SplitCounts:
    """Sizes of a split.

    Attributes:
        pictures: records.
        objects: masks.
        phrases: phrases.
        skipped: entries of the quarantine list.
        videos: videos of the plan, None where they are not counted.
        expressions: of these videos, None where they are not counted.

    Of published sizes, None is one that is not known.
    """

    pictures: int | None = 0
    objects: int | None = 0
    phrases: int | None = 0
    skipped: int = 0
    # The report has these two in a list of their own.
    videos: int | None = dataclasses.field(default=None, compare=False)
    expressions: int | None = dataclasses.field(default=None, compare=False)

    def sizes(self) -> dict[str, int | None]:
        """Returns what is counted of every set, by name."""
        return {name: getattr(self, name) for name in ("pictures", "objects", "phrases", "skipped")}


class Conversion:
    """The book that a builder keeps while it converts.

    Args:
        on_picture: called as `on_picture(split, done, total)` after each picture, for a progress bar.

    Attributes:
        counts: by split.
        skipped: what was left out, as `skip` lists it.
        facts: further entries of the report, as JSON takes them.
        lost_items: items of a plan of which nothing could be used: pictures, or archives; with those of the source
            that did not become items.
        lost_pictures: pictures within an item that could not be used.
    """

    def __init__(self, on_picture: Callable[[str, int, int], None] | None = None):
        self.counts: dict[str, SplitCounts] = {}
        self.skipped: list[dict] = []
        self.facts: dict[str, object] = {}
        self.lost_items = 0
        self.lost_pictures = 0
        self._on_picture = on_picture
        self._totals: Counter[str] = Counter()
        self._unplanned = 0
        self._done: Counter[str] = Counter()

    def expect(self, split: str, pictures: int) -> None:
        """Announces how many pictures a split has in the source."""
        self.counts.setdefault(split, SplitCounts())
        self._totals[split] = pictures

    def skip(self, split: str, file: str, reason: str, **ids: object) -> None:
        """Lists something that is left out.

        Args:
            split: "" where the split is not known.
            file: the file in which the fault lies.
            reason: what is wrong with it.
            **ids: what identifies it in the source, such as `ref_id`.
        """
        self.counts.setdefault(split, SplitCounts()).skipped += 1
        self.skipped.append({"split": split, "file": file, "reason": reason, **ids})

    def lose_item(self, split: str, file: str, reason: str) -> None:
        """Lists an item of the plan that is left out as a whole; see `skip`."""
        self.lost_items += 1
        self.skip(split, file, reason)

    def lose_unplanned(self, split: str, file: str, reason: str, pictures: int = 1, **ids: object) -> None:
        """Lists in one entry what is left out as a whole before it becomes items of the plan; see `skip`.

        Args:
            split: "" where the split is not known.
            file: the file, folder or video that is left out.
            reason: what is wrong with it.
            pictures: how many pictures it holds or lists, or is likely to hold.
            **ids: what identifies it in the source.
        """
        self.lost_items += pictures
        self._unplanned += pictures
        self.skip(split, file, reason, **ids, **({"pictures": pictures} if pictures != 1 else {}))

    def lose_picture(self, split: str, file: str, reason: str) -> None:
        """Lists a picture of an item, such as an archive, that is left out as a whole; see `skip`."""
        self.lost_pictures += 1
        self.skip(split, file, reason)

    def wrote(self, split: str, objects: int, phrases: int) -> None:
        """Counts a record."""
        counts = self.counts[split]
        counts.pictures = (counts.pictures or 0) + 1
        counts.objects = (counts.objects or 0) + objects
        counts.phrases = (counts.phrases or 0) + phrases

    def picture_done(self, split: str) -> None:
        """Says that a picture of the source was dealt with, written or not."""
        self._done[split] += 1
        if self._on_picture:
            self._on_picture(split, self._done[split], self._totals[split])

    def merge(self, other: "Conversion") -> None:
        """Adds the book of another part of the same conversion."""
        for split, counts in other.counts.items():
            mine = self.counts.setdefault(split, SplitCounts())
            for name, value in counts.sizes().items():
                setattr(mine, name, getattr(mine, name) + value)
        self.skipped += other.skipped
        self.facts |= other.facts
        self.lost_items += other.lost_items
        self.lost_pictures += other.lost_pictures
        self._totals += other._totals
        self._unplanned += other._unplanned

    def check_skipped(self, allowed: float, directory: Path) -> None:
        """Refuses a conversion of which too much was skipped.

        Entries alone would not do: of a set with a hundred masks in a picture, half of the pictures could be lost,
        and a folder that is missing is one entry.

        Args:
            allowed: share of skipped entries among all objects (pictures, where there are no objects), and of lost
                pictures among all pictures.
            directory: final place of the data set; the quarantine list goes beside it.

        Raises:
            UserError: more than that was skipped; the data set is not written, the list is.
        """
        sound = sum(max(counts.pictures or 0, counts.objects or 0) for counts in self.counts.values())
        pictures = sum(counts.pictures or 0 for counts in self.counts.values())
        for broken, total, what in (
            (len(self.skipped), sound + len(self.skipped), "entries"),
            (self.lost_items, self._totals.total() + self._unplanned, "pictures or archives"),
            (self.lost_pictures, pictures + self.lost_pictures, "pictures"),
        ):
            share = broken / max(total, 1)
            if share > allowed:
                listed = _refused_list(directory)
                listed.parent.mkdir(parents=True, exist_ok=True)
                self._write_skipped(listed)
                raise UserError(
                    f"{broken:,} of {total:,} {what} ({share:.1%}) are broken, at most {allowed:.1%} may be; the "
                    f"first: {self.skipped[0]['file']}: {self.skipped[0]['reason']}; all are listed in "
                    f"{str(listed)!r}; mend them, or allow more with --max-skipped"
                )

    def write(self, directory: Path, published: Mapping[str, SplitCounts], **facts: object) -> None:
        """Writes the report and, if anything was skipped, the quarantine list beside the records.

        Args:
            directory: of the data set, still under its temporary name.
            published: the sizes that the data set's authors give, by split.
            **facts: further entries, such as `source` and `licence`.
        """
        report = {
            "schema_version": SCHEMA_VERSION,
            **facts,
            **self.facts,
            "splits": {split: counts.sizes() for split, counts in self.counts.items()},
            "published": {split: counts.sizes() for split, counts in published.items()},
        }
        (directory / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if self.skipped:
            self._write_skipped(directory / QUARANTINE_FILE)

    def _write_skipped(self, path: Path) -> None:
        # Escaped, since a name that is not UTF-8 could not be written otherwise.
        lines = (json.dumps(entry) for entry in self.skipped)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def forget_refusal(directory: Path) -> None:
    """Removes the quarantine list of an earlier conversion that was refused (`Conversion.check_skipped`)."""
    _refused_list(directory).unlink(missing_ok=True)


def _refused_list(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.{QUARANTINE_FILE}")


def likely_size(sizes: Sequence[int]) -> int:
    """Returns how many pictures a video or archive is likely to hold that nobody can count.

    Args:
        sizes: of others of its kind: it counts as their mean, at least as 1.
    """
    return max(1, round(sum(sizes) / max(len(sizes), 1)))


def image_key(image_id: str) -> int:
    """Returns 64 bits that stand for an image id: ids of millions of pictures are compared by them."""
    return int.from_bytes(hashlib.blake2b(image_id.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def read_report(directory: Path) -> tuple[dict[str, SplitCounts], dict[str, SplitCounts]]:
    """Returns the counts of a prepared data set and the published ones, by split.

    Raises:
        UserError: the folder has no readable report.
    """
    path = Path(directory) / REPORT_FILE
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        counts, published = (
            {split: SplitCounts(**_sizes(sizes, unknown)) for split, sizes in report[key].items()}
            for key, unknown in (("splits", ()), ("published", ("pictures", "objects", "phrases")))
        )
        for split, sizes in report.get("videos", {}).items():
            wanted = published.setdefault(split, SplitCounts(pictures=None, objects=None, phrases=None))
            sizes = _sizes(sizes, ("published_videos", "published_expressions"))
            for name in ("videos", "expressions"):
                setattr(counts.setdefault(split, SplitCounts()), name, sizes[name])
                setattr(wanted, name, sizes[f"published_{name}"])
    except PermissionError as error:
        raise UserError(f"the report {str(path)!r} cannot be read: {reason_of(error)}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"no readable report in {str(path)!r} ({error}); prepare the data set again") from None
    return counts, published


def _sizes(sizes: dict, unknown: tuple[str, ...]) -> dict:
    """Returns sizes as a report gives them, if all are numbers; those in `unknown` may be None."""
    for name, size in sizes.items():
        if not (isinstance(size, int) or (size is None and name in unknown)):
            raise TypeError(f"{name} is {size!r}, a number is wanted")
    return sizes


def differences(counts: Mapping[str, SplitCounts], published: Mapping[str, SplitCounts]) -> list[str]:
    """Says in one line per split which of the converted counts are off from the published ones."""
    lines = []
    for split, wanted in published.items():
        found = counts.get(split, SplitCounts())
        names = ("videos", "expressions", "pictures", "objects", "phrases")
        sizes = [(name, getattr(found, name) or 0, getattr(wanted, name)) for name in names]
        off = [f"{got:,} of {want:,} {name}" for name, got, want in sizes if want is not None and got != want]
        if off:
            lines.append(f"{split}: {', '.join(off)}")
    return lines
