"""The files of the REFER interface: `refs(<split by>).p`, `instances.json` and COCO's pictures."""

import dataclasses
import json
import pickle
from pathlib import Path

from unilseg_jax.errors import UserError

# Relative to the raw folder: REFER's own place first, then those of other code bases.
PICTURE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")


class ClosedUnpickler(pickle.Unpickler):
    """Reads a pickle of plain values and refuses every class: one named in a file can run any code."""

    def find_class(self, module: str, name: str):
        """Refuses.

        Raises:
            UserError: always.
        """
        raise UserError(f"it names the class {module}.{name}; refs files hold plain values only, so it is refused")


def load_refs(path: Path) -> list:
    """Reads a refs file.

    Args:
        path: of `refs(<split by>).p`.

    Returns:
        The refs as they stand in the file.

    Raises:
        UserError: the file is missing, is no pickled list, or names a class.
    """
    try:
        with open(path, "rb") as file:
            # The published files were written by Python 2; latin1 gives every byte of its strings a letter.
            refs = ClosedUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"no such file: {str(path)!r}; REFER's refs file is wanted") from None
    except UserError as error:
        raise UserError(f"{str(path)!r} is not read: {error}") from None
    # A broken pickle can raise nearly anything; the message names what.
    except Exception as error:
        raise UserError(f"{str(path)!r} is no readable pickle ({type(error).__name__}: {error})") from None
    if not isinstance(refs, list):
        raise UserError(f"{str(path)!r} holds a {type(refs).__name__}, a list of refs is wanted")
    return refs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instances:
    """An `instances.json`, by id.

    Attributes:
        pictures: entries of `images`.
        annotations: entries of `annotations`.
        categories: names.
        faults: (what, id, reason) of entries that are left out.
    """

    pictures: dict[int, dict]
    annotations: dict[int, dict]
    categories: dict[int, str]
    faults: list[tuple[str, object, str]]


def load_instances(path: Path) -> Instances:
    """Reads an annotation file in the form of COCO 2014.

    Args:
        path: of `instances.json`.

    Raises:
        UserError: the file is missing, is no JSON, or lacks a part.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        parts = {name: content[name] for name in ("images", "annotations", "categories")}
    except FileNotFoundError:
        raise UserError(f"no such file: {str(path)!r}; REFER's annotation file is wanted") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is no COCO annotation file ({type(error).__name__}: {error})") from None
    faults: list[tuple[str, object, str]] = []
    by_id = {name: _by_id(name, entries, faults) for name, entries in parts.items()}
    return Instances(
        pictures=by_id["images"],
        annotations=by_id["annotations"],
        categories={key: str(entry.get("name", "")) for key, entry in by_id["categories"].items()},
        faults=faults,
    )


def _by_id(name: str, entries: object, faults: list[tuple[str, object, str]]) -> dict[int, dict]:
    found: dict[int, dict] = {}
    for entry in entries if isinstance(entries, list) else []:
        key = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(key, int):
            faults.append((name, key, "an entry without an id"))
        elif key in found:
            faults.append((name, key, "the id occurs twice; the first entry is kept"))
        else:
            found[key] = entry
    return found


def find_pictures(raw: Path, pictures: Path | None) -> Path:
    """Returns the folder of COCO's train2014 pictures.

    Args:
        raw: the raw folder.
        pictures: the folder if the user named it, else it is looked for in `PICTURE_FOLDERS`.

    Raises:
        UserError: there is no such folder.
    """
    if pictures is not None:
        if not Path(pictures).is_dir():
            raise UserError(f"no such folder of pictures: {str(pictures)!r}; check the path")
        return Path(pictures)
    for folder in PICTURE_FOLDERS:
        if (raw / folder).is_dir():
            return raw / folder
    raise UserError(
        f"no COCO train2014 pictures in {str(raw)!r}: looked for {', '.join(PICTURE_FOLDERS)}; "
        "name their folder with --pictures"
    )
