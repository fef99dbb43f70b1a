"""Finds the builders and stand-ins under `data/` of the checkout that this package runs from.

The modules are loaded by their place, in a package of their own name, so that no top-level package called
`data` or `refcoco` gets in the way of the user's. TFDS has builders of its own called `coco` or `davis`, so ours
are not entered in its registry.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import unilseg_jax
from unilseg_jax.errors import UserError

BUILDERS = Path(unilseg_jax.__file__).parents[1] / "data"


def builder_names() -> list[str]:
    """Returns the names of all data sets that have a builder."""
    return sorted(path.parent.name for path in BUILDERS.glob("*/*_dataset_builder.py"))


def load_builder(name: str) -> type:
    """Loads `data/NAME/NAME_dataset_builder.py`.

    Args:
        name: of the data set.

    Returns:
        The builder's class.

    Raises:
        UserError: there is no such builder.
    """
    if not BUILDERS.is_dir():
        raise UserError(
            f"no folder {str(BUILDERS)!r}: the builders lie in data/ of the repository; run from a checkout "
            "(pip install -e .)"
        )
    if not name.isidentifier() or not (BUILDERS / name / f"{name}_dataset_builder.py").is_file():
        raise UserError(f"no builder for the data set {name!r}; there are: {', '.join(builder_names()) or 'none'}")
    return _load(name, f"{name}_dataset_builder").Builder


def load_stand_in(name: str) -> ModuleType:
    """Loads `data/NAME/synthetic.py`, whose `write(root, count, seed)` draws an imitation of the data set.

    Args:
        name: of a data set that has a builder.

    Raises:
        UserError: the data set has none.
    """
    if not name.isidentifier() or not (BUILDERS / name / "synthetic.py").is_file():
        there = sorted(path.parent.name for path in BUILDERS.glob("*/synthetic.py"))
        raise UserError(f"no stand-in for the data set {name!r}; there are some for: {', '.join(there) or 'none'}")
    return _load(name, "synthetic")


def _load(name: str, module: str) -> ModuleType:
    """Returns a module of a data set's folder, in a package that is loaded first."""
    package, folder = f"unilseg_jax_data_{name}", BUILDERS / name
    if package not in sys.modules:
        _execute(package, folder / "__init__.py", [str(folder)])
    full = f"{package}.{module}"
    if full not in sys.modules:
        _execute(full, folder / f"{module}.py", None)
    return sys.modules[full]


def _execute(name: str, file: Path, search: list[str] | None) -> None:
    import tensorflow_datasets as tfds  # here: the names of the sets are wanted without it

    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=search)
    assert spec is not None
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with tfds.core.registered.skip_registration():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
