"""ImageNet, or any folder of pictures, as triplet records that hold nothing but the picture.

A weak source: masks and phrases come from the annotation engine. The classes of ImageNet's folders are kept in
the report (`conversion.json`), and a picture's folder in its `image_id`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import archives, raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.conversion import likely_size
from unilseg_jax.input_pipeline.triplet import is_utf8

ENDINGS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
SPLITS = ("train", "val", "test")
# Where the folders of the splits lie: alone, or as the competition's archive is unpacked.
ROOTS = ("", "ILSVRC/Data/CLS-LOC")
CLASSES_FILE = "LOC_synset_mapping.txt"
_CLASS_FOLDER = re.compile(r"n\d{8}(\.(zip|tar))?")


class Picture(NamedTuple):
    """An item: a picture, by its path in the raw folder or in an archive of it."""

    name: str
    archive: str = ""


class Builder(TripletBuilder):
    """Takes pictures as they are."""

    HOMEPAGE = "https://www.image-net.org/"
    LICENCE = "ImageNet: non-commercial research and education only; any other folder: its owner's terms"
    BUILDER_CONFIGS = (
        SetConfig(name="image_folder", description="any folder of pictures"),
        SetConfig(
            name="imagenet",
            description="ImageNet (ILSVRC 2012)",
            published={
                "train": (1_281_167, None, None),
                "val": (50_000, None, None),
                "test": (100_000, None, None),
            },
            fetch="ILSVRC 2012 from https://www.image-net.org/challenges/LSVRC/2012/, after registration",
        ),
    )
    DEFAULT_BUILDER_CONFIG_NAME = "image_folder"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns `imagenet` if there are folders of its classes or its pictures, else `image_folder`."""
        folders = _split_folders(raw)
        if any(_looks_like_imagenet(folder) for folder in folders.values()):
            return ["imagenet"]
        return ["image_folder"] if any(True for folder in folders.values() for _ in _files(folder)) else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return f"train/<class>/*.JPEG and val/*.JPEG, or pictures ({', '.join(ENDINGS)}) or ZIP or TAR archives of them"

    def plan(self, raw: Path) -> dict[str, list[Picture]]:
        """Returns the pictures of each split in the order of their names."""
        self._raw = raw
        self._archive: archives.Archive | None = None
        if (raw / CLASSES_FILE).is_file():
            self.conversion.facts["classes"] = self._classes(raw / CLASSES_FILE)
        return {split: list(self._pictures(folder)) for split, folder in _split_folders(raw).items()}

    def _classes(self, path: Path) -> dict[str, str]:
        """Returns the names of the classes by their folders, out of lines `<folder> <names>`."""
        classes = {}
        for line in raw_files.read_lines(path, "list of classes"):
            words = line.split(maxsplit=1)
            if is_utf8(line):
                classes[words[0]] = words[-1]
            else:
                self.conversion.skip("", path.name, f"the line {line!r} is not UTF-8")
        return classes

    def _pictures(self, folder: Path) -> Iterator[Picture]:
        sizes, broken = [], []
        for file in _files(folder):
            name = file.relative_to(self._raw).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError:
                self.conversion.lose_unplanned("", raw_files.shown_name(file), "the file's name is not UTF-8")
                continue
            if file.suffix.lower() not in archives.ENDINGS:
                yield Picture(name)
                continue
            try:
                with archives.open_archive(file) as archive:
                    members = sorted(filter(_is_picture, archive.members))
                    whole = True
                    for member, reason in archive.faults:
                        if member == file.name:
                            whole = False
                            broken.append((f"{name}/{member}", reason, len(members)))
                        elif _is_picture(member) and member not in archive.members:
                            self.conversion.lose_unplanned("", f"{name}/{member}", reason)
                        else:
                            self.conversion.skip("", f"{name}/{member}", reason)
                    sizes += [len(members)] * whole
                    yield from (Picture(member, name) for member in members)
            except UserError as error:
                broken.append((name, str(error), 0))
        for file, reason, there in broken:
            self.conversion.lose_unplanned("", file, reason, max(likely_size(sizes) - there, 1))

    def item_file(self, item: Picture) -> str:
        """Returns the picture's path; an archive counts as a folder."""
        return f"{item.archive}/{item.name}" if item.archive else item.name

    def records(self, split: str, item: Picture) -> Iterator[dict]:
        """Makes the record of a picture."""
        if item.archive:
            picture = raw_files.check_picture(self._opened(item.archive).read(item.name))
        else:
            picture = raw_files.read_picture(self._raw / item.name)
        yield self.record(picture, image_id=self.item_file(item), task="none")

    def _opened(self, name: str) -> archives.Archive:
        """Returns an archive, which stays open until another one is wanted."""
        path = self._raw / name
        if self._archive is None or self._archive.path != path:
            if self._archive is not None:
                self._archive.close()
            self._archive = archives.open_archive(path)
        return self._archive


def _split_folders(raw: Path) -> dict[str, Path]:
    """Returns the folders of the splits; a raw folder without any is all of `train`."""
    for root in ROOTS:
        found = {split: raw / root / split for split in SPLITS if (raw / root / split).is_dir()}
        if found:
            return found
    return {"train": raw}


def _looks_like_imagenet(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_CLASS_FOLDER.fullmatch(entry.name) or entry.name.startswith("ILSVRC2012_") for entry in entries)


def _is_picture(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return last.lower().endswith(ENDINGS) and not last.startswith(".")


def _files(folder: Path) -> Iterator[Path]:
    """Goes through the pictures and archives of a folder and those in it; links to folders are not followed.

    Raises:
        UserError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"the folder {str(error.filename)!r} is not read: {error.strerror}") from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _is_picture(name) or (name.lower().endswith(archives.ENDINGS) and not name.startswith(".")):
                yield Path(place, name)
