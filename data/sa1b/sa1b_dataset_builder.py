"""SA-1B as triplet records: pictures with masks and scores, and no word about any of them.

A weak source: its masks wait for phrases (the annotation engine), so the records have none.
"""

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import archives, raw_files, triplet
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.ops import masks

SPLIT = "train"
PART_IDS = 1000
_NAME = re.compile(r"(sa_(0|[1-9]\d{0,11}))\.(jpg|json)")
ODD_NAME = "the name is not sa_<id> with a plain number"
# Score 1 says that a human drew the mask, which none of these is: the largest number below 1 of 32 bits.
MAX_SCORE = 1 - 2.0**-24
_RLE_SYMBOLS = re.compile("[0-o]+")


class TarShard(NamedTuple):
    """An item: an archive. Size (bytes) and time (ns) tell whether it is still the same one."""

    file: str
    size: int
    time: int


class FolderPart(NamedTuple):
    """An item: the pictures of a folder whose ids are `first` and the next ones, `PART_IDS` in all.

    Number of its files, their bytes, and the time (ns) of the latest tell whether they are still the same ones.
    """

    folder: str
    first: int
    files: int
    size: int
    time: int


class Builder(TripletBuilder):
    """Converts SA-1B's archives, or folders of the unpacked files."""

    HOMEPAGE = "https://ai.meta.com/datasets/segment-anything/"
    LICENCE = "SA-1B Dataset Research License: research only, no redistribution"
    BUILDER_CONFIGS = (
        SetConfig(
            name="sa1b",
            description="SA-1B: masks of a model, without classes and text",
            published={SPLIT: (11_185_362, None, None)},
            fetch="sa_000000.tar ... by the list of links at https://ai.meta.com/datasets/segment-anything-downloads/",
        ),
    )
    # An item is some thousand pictures already.
    SHARD_ITEMS = 1

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the one configuration if the raw folder, or a folder in it, holds archives or pictures."""
        paths = (path for folder in _folders(raw) for path in folder.iterdir())
        found = any(_is_ours(path) and path.suffix != ".json" for path in paths)
        return ["sa1b"] if found else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "sa_000000.tar ..., or folders of sa_<id>.jpg with sa_<id>.json"

    def plan(self, raw: Path) -> dict[str, list[TarShard | FolderPart]]:
        """Returns the archives and the parts of folders."""
        self._raw = raw
        items: list[TarShard | FolderPart] = []
        for folder in _folders(raw):
            tars = {path.stem: path for path in folder.iterdir() if _is_tar(path)}
            for _, path in sorted(tars.items()):
                state = path.stat()
                items.append(TarShard(_within(raw, path), state.st_size, state.st_mtime_ns))
            twice = folder != raw and (raw / f"{folder.name}.tar").is_file()
            if twice and any(_NAME.fullmatch(path.name) for path in folder.iterdir()):
                reason = f"the folder is {folder.name}.tar once more, unpacked; the archive is read"
                self.conversion.skip("", folder.name, reason)
                continue
            items += self._parts(folder, _within(raw, folder))
        return {SPLIT: items}

    def _parts(self, folder: Path, name: str) -> list[FolderPart]:
        """Returns the parts of a folder, and lists file names that only look like the set's."""
        parts: dict[int, FolderPart] = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                found = _NAME.fullmatch(entry.name)
                if found:
                    first = int(found[2]) // PART_IDS * PART_IDS
                    part = parts.get(first, FolderPart(name, first, 0, 0, 0))
                    # A link to nothing or to itself has a state of its own.
                    state = entry.stat(follow_symlinks=os.path.exists(entry.path))
                    parts[first] = part._replace(
                        files=part.files + 1, size=part.size + state.st_size, time=max(part.time, state.st_mtime_ns)
                    )
                elif entry.name.startswith("sa_"):
                    self._list_odd(entry)
        return [part for _, part in sorted(parts.items())]

    def _list_odd(self, entry: os.DirEntry) -> None:
        """Lists a file that only looks like one of the set, or an archive or folder that is not there."""
        shown = raw_files.shown_name(Path(entry.name))
        if _is_odd(entry.name):
            lists = self.conversion.lose_picture if _is_picture(entry.name) else self.conversion.skip
            lists("", shown, ODD_NAME)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            self.conversion.lose_unplanned("", shown, "the link leads nowhere, or to itself")

    def item_file(self, item: TarShard | FolderPart) -> str:
        """Returns the archive, or the folder with its first id."""
        return item.file if isinstance(item, TarShard) else f"{item.folder}/sa_{item.first}"

    def records(self, split: str, item: TarShard | FolderPart) -> Iterator[dict]:
        """Makes the records of an archive, in its order, or of a part of a folder, in the order of the ids."""
        if isinstance(item, FolderPart):
            folder = self._raw / item.folder
            stems = [f"sa_{number}" for number in range(item.first, item.first + PART_IDS)]
            names = {f"{stem}{ending}" for stem in stems for ending in (".jpg", ".json")}
            # A link that leads nowhere is there; reading it says so.
            pairs = _pairs(name for name in sorted(names, key=_id_of) if os.path.lexists(folder / name))
            yield from self._records(split, item.folder, pairs, lambda name: raw_files.read_bytes(folder / name))
            return
        with archives.open_archive(self._raw / item.file) as archive:
            pairs = _pairs(archive.members)
            odd = [(name, ODD_NAME) for name in archive.members if _is_odd(PurePosixPath(name).name)]
            for name, reason in [*archive.faults, *odd]:
                self._list_fault(split, item.file, name, reason, pairs)
            yield from self._records(split, item.file, pairs, archive.read)

    def _list_fault(self, split: str, archive: str, name: str, reason: str, pairs: Collection[str]) -> None:
        """Lists what is wrong with an archive; a picture of which nothing else is read is lost."""
        path, lists = PurePosixPath(name), self.conversion.skip
        if name == PurePosixPath(archive).name:
            # Nobody knows how much of an archive that is cut short is missing: all of it counts.
            lists = self.conversion.lose_item
        elif _is_picture(path.name) and str(path.with_suffix("")) not in pairs:
            lists = self.conversion.lose_picture
        lists(split, f"{archive}/{name}", reason)

    def _records(
        self, split: str, place: str, pairs: dict[str, dict[str, str]], read: Callable[[str], bytes]
    ) -> Iterator[dict]:
        """Makes the records of pictures with annotation; what lacks one of the two is listed."""
        for path, names in pairs.items():
            file, stem = f"{place}/{path}.jpg", PurePosixPath(path).name
            try:
                if len(names) < 2:
                    missing = "picture" if "json" in names else "annotation"
                    raise UserError(f"the {missing} is missing")
                yield self._record(split, file, stem, read(names["jpg"]), read(names["json"]))
            except UserError as error:
                self.conversion.lose_picture(split, file, str(error))

    def _record(self, split: str, file: str, stem: str, encoded: bytes, annotation: bytes) -> dict:
        size, entries = _parse(annotation)
        picture = raw_files.check_picture(encoded, size)
        found = []
        for entry in entries:
            try:
                found.append(_record_mask(entry, picture.height, picture.width))
            except UserError as error:
                source_id = entry.get("id") if isinstance(entry, dict) else None
                self.conversion.skip(split, file, str(error), id=source_id)
        if not found:
            raise UserError("the picture has no sound mask")
        return self.record(picture, image_id=stem, masks=found, task="none")


def _folders(raw: Path) -> list[Path]:
    """Returns the raw folder and those in it."""
    # Not `Path.iterdir`, which would ask for the kind of each of millions of files.
    with os.scandir(raw) as entries:
        return [raw, *sorted(Path(entry.path) for entry in entries if _is_folder(entry))]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    # A link that leads to itself.
    except OSError:
        return False


def _is_tar(path: Path) -> bool:
    return path.name.startswith("sa_") and path.suffix == ".tar" and path.is_file()


def _is_ours(path: Path) -> bool:
    return _is_tar(path) or _NAME.fullmatch(path.name) is not None


def _is_odd(name: str) -> bool:
    """Whether a file name only looks like the set's."""
    return name.startswith("sa_") and name.lower().endswith((".jpg", ".json")) and not _NAME.fullmatch(name)


def _is_picture(name: str) -> bool:
    return name.startswith("sa_") and name.lower().endswith(".jpg")


def _within(raw: Path, path: Path) -> str:
    return path.relative_to(raw).as_posix()


def _id_of(name: str) -> int:
    return int(name[3 : name.index(".")])


def _pairs(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Returns the names of picture and annotation (`jpg`, `json`) by their path without ending, as the paths come."""
    pairs: dict[str, dict[str, str]] = {}
    for path in map(PurePosixPath, names):
        found = _NAME.fullmatch(path.name)
        if found:
            # Pictures of one name in two folders are two, of which the second is listed.
            pairs.setdefault(str(path.with_suffix("")), {})[found[3]] = str(path)
    return pairs


def _parse(annotation: bytes) -> tuple[tuple[object, object], list]:
    """Returns the height and width that an annotation file speaks of, and its entries."""
    try:
        content = json.loads(annotation)
        image, entries = content["image"], content["annotations"]
        size = (image["height"], image["width"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"the annotation is no file of SA-1B ({type(error).__name__}: {error})") from None
    if not isinstance(entries, list):
        raise UserError(f"the annotations are a {type(entries).__name__}, a list is wanted")
    return size, entries


def _record_mask(entry: object, height: int, width: int) -> triplet.RecordMask:
    """Takes over a mask without drawing it: with a hundred in a picture that would be most of the work."""
    if not isinstance(entry, dict):
        raise UserError(f"an annotation is a {type(entry).__name__}, an object is wanted")
    segmentation, score, source_id = (entry.get(key) for key in ("segmentation", "predicted_iou", "id"))
    # Not `math.isfinite`, which fails for a whole number that is too large to be made a float.
    if not isinstance(score, int | float) or not abs(score) < math.inf:
        raise UserError(f"the predicted_iou is {score!r}, a number is wanted")
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        raise UserError(f"the mask's size is {size}, [{height}, {width}] is wanted")
    counts = segmentation.get("counts")
    if not isinstance(counts, str) or not _RLE_SYMBOLS.fullmatch(counts):
        raise UserError("the run lengths are not a compressed COCO string")
    runs = masks.rle_runs(counts.encode("ascii"))
    if runs.min() < 0 or runs.sum() != height * width:
        raise UserError(f"the run lengths cover {int(runs.sum())} pixels, {height * width} are wanted")
    return triplet.RecordMask(
        counts=counts.encode("ascii"),
        box=_box(runs, height),
        kind="instance",
        score=float(min(max(score, 0), MAX_SCORE)),
        source_id=source_id if isinstance(source_id, int) and abs(source_id) < 1 << 63 else -1,
    )


def _box(runs: np.ndarray, height: int) -> tuple[float, float, float, float]:
    """Returns the smallest box (x, y, width, height) in pixels around the ones of run lengths, columns first."""
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1
    drawn = last >= first
    first, last = first[drawn], last[drawn]
    if not first.size:
        raise UserError("the mask has no pixel")
    left, right = first // height, last // height
    # A run that goes on into the next column touches both edges of the picture.
    whole = bool((left != right).any())
    top = 0 if whole else int((first % height).min())
    bottom = height - 1 if whole else int((last % height).max())
    x = int(left.min())
    return (float(x), float(top), float(int(right.max()) + 1 - x), float(bottom + 1 - top))
