"""Where the pictures and masks of salient object data sets lie: their copies are unpacked in many ways."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from unilseg_jax.input_pipeline import raw_files

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MASK_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
# In one folder the ending is what tells a picture from its mask.
BESIDE_PICTURE_ENDINGS, BESIDE_MASK_ENDINGS = (".jpg", ".jpeg", ".bmp", ".webp"), (".png",)
# The last word of a folder's name: `DUTS-TR-Image`, `ground_truth_mask`.
PICTURE_WORDS = ("image", "images", "imgs", "img", "rgb", "pictures")
MASK_WORDS = ("mask", "masks", "gt", "truth", "groundtruth", "annotations")
SPLITS = ("train", "val", "test")


class PairFolders(NamedTuple):
    """A folder of pictures and one of masks; they may be the same."""

    pictures: Path
    masks: Path


class Pair(NamedTuple):
    """An item: a picture with its mask."""

    image_id: str
    picture: str
    mask: str


class Pairing(NamedTuple):
    """The pairs of a folder.

    Attributes:
        pairs: in the order of their stems.
        lost: file and reason of pictures that are left out, and of masks without a picture.
        faults: file and reason of other masks that are left out.
    """

    pairs: list[Pair]
    lost: list[tuple[str, str]]
    faults: list[tuple[str, str]]


def find_pair_folders(home: Path, own: tuple[str, str] | None = None) -> PairFolders | None:
    """Finds the pictures and masks of a data set.

    Args:
        home: folder of the data set.
        own: the authors' folders of pictures and masks, relative to `home`; None where they have no other
            names than the usual ones.

    Returns:
        The folders; None if `home` holds no such data set.
    """
    by_word = {re.split(r"[-_ ]", path.name.lower())[-1]: path for path in reversed(_folders(home))}
    pictures = next((by_word[word] for word in PICTURE_WORDS if word in by_word), None)
    masks = next((by_word[word] for word in MASK_WORDS if word in by_word), None)
    candidates = [PairFolders(home / own[0], home / own[1])] if own else []
    if pictures and masks:
        candidates.append(PairFolders(pictures, masks))
    candidates += [PairFolders(folder, folder) for folder in (pictures, home) if folder]
    return next((folders for folders in candidates if _has_pair(folders)), None)


def find_named(
    raw: Path, names: Mapping[str, str], own: tuple[str, str] | None, own_alone: bool
) -> dict[str, PairFolders]:
    """Finds the folders of a data set by its name: the raw folder itself, one in it, or one in that.

    Args:
        raw: the raw folder.
        names: for each split the name of its folder, in lower case without hyphens.
        own: see `find_pair_folders`.
        own_alone: whether `own` marks the data set even where its name is missing.

    Returns:
        The folders of the splits that are there.
    """
    inner = _folders(raw)
    candidates = [raw, *inner, *(deeper for folder in inner for deeper in _folders(folder))]
    found = {}
    for split, name in names.items():
        for home in candidates:
            # The raw folder may be given as ".".
            own_name = home.resolve().name if home == raw else home.name
            named = re.sub(r"[-_ ]", "", own_name.lower()) == name
            at_own = own_alone and own is not None and home == raw and all((raw / part).is_dir() for part in own)
            folders = find_pair_folders(home, own) if named or at_own else None
            if folders:
                found[split] = folders
                break
    return found


def find_others(raw: Path, claimed: Iterable[PairFolders]) -> list[tuple[str, str, PairFolders]]:
    """Finds pairs in the raw folder or the folders in it that belong to none of the named data sets.

    Args:
        raw: the raw folder.
        claimed: folders of the named data sets.

    Returns:
        Split, prefix of the image ids, and folders. A folder called `train`, `val` or `test` is that split, all
        others are `train`.
    """
    taken = {folders.pictures for folders in claimed}
    found = []
    for home in (raw, *_folders(raw)):
        folders = find_pair_folders(home)
        if folders is None or folders.pictures in taken:
            continue
        taken.add(folders.pictures)
        is_split = home != raw and home.name in SPLITS
        prefix = "" if home == raw or is_split else f"{raw_files.shown_name(home)}/"
        found.append((home.name if is_split else "train", prefix, folders))
    return found


def pair_files(folders: PairFolders, prefix: str = "") -> Pairing:
    """Pairs pictures and masks by the stems of their names.

    Args:
        folders: of pictures and masks.
        prefix: of the image ids.

    Raises:
        UserError: a folder cannot be read.
    """
    pictures, masks = _list(folders)
    lost = list(pictures.faults)
    pairs = []
    for stem, picture in pictures.files.items():
        if stem in masks.files:
            pairs.append(Pair(prefix + stem, str(picture), str(masks.files[stem])))
        else:
            lost.append((prefix + picture.name, "the picture has no mask of its stem"))
    lost += [
        (prefix + mask.name, "the mask has no picture of its stem")
        for stem, mask in masks.files.items()
        if stem not in pictures.files
    ]
    return Pairing(pairs, lost, masks.faults)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _list(folders: PairFolders) -> tuple[raw_files.Listing, raw_files.Listing]:
    beside = folders.pictures == folders.masks
    return (
        raw_files.list_files(folders.pictures, BESIDE_PICTURE_ENDINGS if beside else PICTURE_ENDINGS),
        raw_files.list_files(folders.masks, BESIDE_MASK_ENDINGS if beside else MASK_ENDINGS),
    )


def _has_pair(folders: PairFolders) -> bool:
    if not all(folder.is_dir() for folder in folders):
        return False
    pictures, masks = _list(folders)
    return bool(pictures.files.keys() & masks.files.keys())
