"""UniLSeg in JAX: segments what a phrase names, at any granularity."""

from unilseg_jax.version import __version__

__all__ = ["Prediction", "Segmenter", "__version__"]


def __getattr__(name: str) -> object:
    """Imports the user's API when it is first asked for, so that the bare package imports at once."""
    if name in ("Prediction", "Segmenter"):
        from unilseg_jax import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module 'unilseg_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the lazy names too."""
    return sorted({*globals(), *__all__})
