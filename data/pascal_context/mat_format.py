"""The original files of Pascal Context: label maps of 459 classes as MATLAB files, and the list of their names."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from jaxtyping import Int64

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, triplet
from unilseg_jax.text.prompts import ClassName

# The list of the 59 classes and the list of the 459 do not spell these alike.
SYNONYMS = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
_NUMBERS = ("uint8", "uint16", "uint32", "int16", "int32", "single", "double")


def read_label_map(path: Path, size: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    """Reads the variable `LabelMap` of a MATLAB file.

    Args:
        path: of the file.
        size: height and width of its picture.

    Raises:
        UserError: it is missing, broken, has no such variable, or is of another size.
    """
    encoded = raw_files.read_bytes(path, "label map")
    try:
        # The headers alone are read first, so that a wrong size never takes memory.
        headers = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(io.BytesIO(encoded))}
        shape, kind = headers.get("LabelMap", ((), "nothing"))
        if kind not in _NUMBERS:
            raise UserError(f"the label map {path.name!r} holds {kind} as LabelMap, a matrix of numbers is wanted")
        if shape != tuple(size):
            shown = " × ".join(str(length) for length in shape)
            raise UserError(f"the label map is {shown}, its picture {size[0]} × {size[1]}")
        labels = scipy.io.loadmat(io.BytesIO(encoded), variable_names=["LabelMap"])["LabelMap"]
    except UserError:
        raise
    # SciPy reports broken files by many classes.
    except Exception as error:
        raise UserError(f"the label map {path.name!r} is broken: {str(error) or type(error).__name__}") from None
    return np.asarray(labels).astype(np.int64)


def read_ids(path: Path, report: Callable[[str], None]) -> dict[int, str]:
    """Reads `labels.txt`, whose lines are `<id>: <name>`.

    Args:
        path: of the file.
        report: is told of each line that is left out.

    Returns:
        The names by id.

    Raises:
        UserError: it is missing.
    """
    names: dict[int, str] = {}
    for line in raw_files.read_lines(path, "list of labels"):
        if not triplet.is_utf8(line):
            report(f"the line {line!r} is not UTF-8")
            continue
        number, _, name = (part.strip() for part in line.partition(":"))
        if not (number.isascii() and number.isdigit() and name):
            report(f"the line {line!r} is not '<id>: <name>'")
        elif int(number) in names:
            report(f"the id {number} occurs twice; the first line is kept")
        else:
            names[int(number)] = name
    return names


def to_evaluated(ids: dict[int, str], classes: Sequence[ClassName]) -> dict[int, int]:
    """Maps the ids of the 459 classes to the labels of the 59 by their names; 0 for those not evaluated.

    Args:
        ids: names by id, as `read_ids` returns them.
        classes: the 59 classes.

    Raises:
        UserError: a class has no id.
    """
    plain = {number: name.lower().replace(" ", "") for number, name in ids.items()}
    there = set(plain.values())
    labels = {name.native: name.label for name in classes}
    # A synonym counts only where the list has not the name itself.
    labels |= {other: labels[name] for other, name in SYNONYMS.items() if name in labels and name not in there}
    mapped = {number: labels.get(name, 0) for number, name in plain.items()}
    missing = [name.native for name in classes if name.label not in mapped.values()]
    if missing:
        raise UserError(f"labels.txt lacks {', '.join(missing)}; the list of the 459 classes is wanted")
    return {0: 0, **mapped}


def translate(labels: Int64[np.ndarray, "h w"], mapping: dict[int, int]) -> Int64[np.ndarray, "h w"]:
    """Returns a label map of 459 classes as one of 59.

    Args:
        labels: ids of `labels.txt`; 0 is none.
        mapping: of `to_evaluated`.

    Raises:
        UserError: an id is not in the list.
    """
    found, places = np.unique(labels, return_inverse=True)
    unknown = [number for number in found.tolist() if number not in mapping]
    if unknown:
        raise UserError(f"the label map has the id {unknown[0]}, which is not in labels.txt")
    return np.array([mapping[number] for number in found.tolist()], np.int64)[places].reshape(labels.shape)
