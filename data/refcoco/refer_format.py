"""REFER's refs files, `refs(<split by>).p`: pickles of plain values."""

import pickle
from pathlib import Path

from unilseg_jax.errors import UserError, reason_of
from unilseg_jax.input_pipeline import raw_files


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
        UserError: the file is missing, cannot be read, is no pickled list, or names a class.
    """
    try:
        raw_files.note(path)
        with open(path, "rb") as file:
            # The published files were written by Python 2; latin1 gives every byte of its strings a letter.
            refs = ClosedUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"no such file: {str(path)!r}; REFER's refs file is wanted") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} is not read: {reason_of(error)}") from None
    except UserError as error:
        raise UserError(f"{str(path)!r} is not read: {error}") from None
    # A broken pickle can raise nearly anything; the message names what.
    except Exception as error:
        raise UserError(f"{str(path)!r} is no readable pickle ({type(error).__name__}: {error})") from None
    if not isinstance(refs, list):
        raise UserError(f"{str(path)!r} holds a {type(refs).__name__}, a list of refs is wanted")
    return refs
