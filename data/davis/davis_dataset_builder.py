"""DAVIS 2016 as triplet records: a frame with the mask of its foreground, which is what stands out in it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.text.prompts import SALIENT

LISTS = Path("ImageSets", "480p")
THRESHOLD = 128  # grey level from which a pixel is foreground

# Published sizes: pictures; every one has a phrase. Frames that do not show the foreground have no mask.
CONFIGS = [
    SetConfig(
        name="davis",
        description="DAVIS 2016 at 480p, one foreground per sequence",
        published={"train": (2079, None, 2079), "val": (1376, None, 1376)},
        fetch="DAVIS-data.zip from https://davischallenge.org/davis2016/code.html",
        picture_places=("JPEGImages/480p", "DAVIS/JPEGImages/480p"),
    )
]


class ListedFrame(NamedTuple):
    """An item: a line of a list; both files are relative to the raw folder."""

    picture: str
    mask: str


class Builder(TripletBuilder):
    """Converts DAVIS's files."""

    HOMEPAGE = "https://davischallenge.org/davis2016/code.html"
    LICENCE = "DAVIS: CC BY 4.0, see its terms of use"
    BUILDER_CONFIGS = CONFIGS
    DEFAULT_BUILDER_CONFIG_NAME = "davis"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configuration if the raw folder has a list of frames."""
        return ["davis"] if _lists(_root(raw)) else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "ImageSets/480p/val.txt (or another list), JPEGImages/480p and Annotations/480p, also inside DAVIS/"

    def plan(self, raw: Path) -> dict[str, list[ListedFrame]]:
        """Returns the frames of each list."""
        self._root = _root(raw)
        lists = _lists(self._root)
        # DAVIS's own list of this name is the union of the two others.
        if {"train", "val"} <= set(lists):
            lists.pop("trainval", None)
        plan = {}
        for split, path in lists.items():
            if split.lower() == "all":
                self.conversion.skip("", path.name, f"{split!r} is kept for all splits together; rename the list")
                continue
            plan[split] = []
            for number, line in enumerate(raw_files.read_lines(path, "list of frames"), 1):
                try:
                    plan[split].append(_listed_frame(line))
                except UserError as error:
                    self.conversion.lose_unplanned(split, path.name, f"line {number}: {error}")
        return plan

    def item_file(self, item: ListedFrame) -> str:
        """Returns the picture's place."""
        return item.picture

    def records(self, split: str, item: ListedFrame) -> Iterator[dict]:
        """Makes the record of a frame."""
        video, frame = Path(item.picture).parent.name, Path(item.picture).stem
        picture = raw_files.read_picture(self._root / item.picture)
        grey = raw_files.read_mask(self._root / item.mask, (picture.height, picture.width))
        found, mask = Annotations(picture.height, picture.width), grey >= THRESHOLD
        if mask.any():
            found.add(mask, [SALIENT], kind="salient")
        else:
            found.add_nothing(SALIENT)
        yield self.record(
            picture,
            image_id=f"{video}/{frame}",
            masks=found.masks,
            phrases=found.phrases,
            task="salient",
            video=video,
            frame=frame,
        )


def _root(raw: Path) -> Path:
    """Returns the folder that DAVIS's archive unpacks to, which may itself be the raw folder."""
    return raw / "DAVIS" if (raw / "DAVIS" / LISTS).is_dir() else Path(raw)


def _lists(root: Path) -> dict[str, Path]:
    """Returns the lists by the name of their split, which becomes a part of file names."""
    return {path.stem: path for path in sorted((root / LISTS).glob("*.txt")) if re.fullmatch(r"\w+", path.stem, re.A)}


def _listed_frame(line: str) -> ListedFrame:
    names = line.split()
    if len(names) != 2:
        raise UserError(f"{line!r} holds {len(names)} names, those of a picture and of its mask are wanted")
    # A list's names begin with a slash and mean the archive's own folder.
    parts = [name.lstrip("/").split("/") for name in names]
    for part in (part for name in parts for part in name):
        raw_files.plain_name(part, "listed file")
    if len(parts[0]) < 2:
        raise UserError(f"the picture {names[0]!r} lies in no folder of a video")
    return ListedFrame(*(os.path.join(*name) for name in parts))
