"""What the authors' PyTorch code can build, and what must be changed in it for a model of other sizes.

It reads `config/general_inference.yaml`; sizes of CLIP it reads off the file that `clip_pretrain` names, and of Swin it
knows two, by a word in the name of `swin_pretrain`. Both files must be there when it starts, though every tensor of
theirs is overwritten by the model's own.
"""

import dataclasses

from unilseg_jax.interop.pretrained import RELEASED_INPUT_SIZE
from unilseg_jax.models.architecture import Architecture

_SWINS = {
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "window_size": 7},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "window_size": 12},
}
"""By the word in the file's name."""
_WRITTEN = {"text_width": "model/segmenter.py", "ffn_width": "model/layers.py"}
"""Sizes that are no keys, but numbers in a file."""
_OF_CLIP = ("text_layers", "sentence_width", "vocab_size", "context_length")
_RATES = ("dropout", "stochastic_depth")


def notes_on_released_code(sizes: Architecture, input_size: int) -> list[str]:
    """Returns what somebody who has the authors' code must know of a model, one line each; none of the released sizes.

    Args:
        sizes: of the model.
        input_size: side of the square network input in pixels.
    """
    released = Architecture()
    names = [field.name for field in dataclasses.fields(sizes) if field.name not in _RATES]
    found = {name: (getattr(sizes, name), getattr(released, name)) for name in names}
    found["input_size"] = (input_size, RELEASED_INPUT_SIZE)
    others = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    notes = []
    if others:
        listed = (f"{name} {_shown(ours)} ({_shown(theirs)})" for name, (ours, theirs) in others.items())
        notes.append(f"sizes that differ from the released model's (in brackets): {', '.join(listed)}")
    if lacks := _lacks(sizes):
        notes.append(f"the authors' code cannot build this model before it is changed: {'; '.join(lacks)}")
    if keys := _keys(sizes, input_size):
        notes.append(f"keys to set in its config/general_inference.yaml: {', '.join(keys)}")
    return notes


def _swin_word(sizes: Architecture) -> str | None:
    """Returns the word by which the authors' code knows a model's Swin; None for one that it does not have."""
    fits = lambda swin: all(getattr(sizes, name) == value for name, value in swin.items())  # noqa: E731
    return next((word for word, swin in _SWINS.items() if fits(swin)), None)


def _lacks(sizes: Architecture) -> list[str]:
    """Returns why the authors' code cannot build a model."""
    released, lacks = Architecture(), []
    if not _swin_word(sizes):
        lacks.append(
            "its model/swin.py has Swin-B with windows of 7 cells and Swin-L with windows of 12, no Swin of "
            f"{sizes.embed_dim} channels, {_shown(sizes.depths)} blocks, {_shown(sizes.num_heads)} heads, windows of "
            f"{sizes.window_size}"
        )
    for name, file in _WRITTEN.items():
        if getattr(sizes, name) != getattr(released, name):
            lacks.append(f"{name} {getattr(released, name)} is written in its {file}")
    return lacks


def _keys(sizes: Architecture, input_size: int) -> list[str]:
    """Returns the keys of the authors' config that are others than for the released model."""
    keys, released = _values(sizes, input_size), _values(Architecture(), RELEASED_INPUT_SIZE)
    lines = [f"{key}: {value}" for key, value in keys.items() if value != released[key]]
    if _swin_word(sizes) == "large":
        lines.append("swin_pretrain: a Swin-L whose name has 'large' in it")
    clip = [
        f"{name} {getattr(sizes, name)}" for name in _OF_CLIP if getattr(sizes, name) != getattr(Architecture(), name)
    ]
    if clip:
        lines.append(f"clip_pretrain: a CLIP with {', '.join(clip)}")
    return lines


def _values(sizes: Architecture, input_size: int) -> dict[str, int | list[int]]:
    """Returns the keys of the authors' config that are sizes."""
    widths = list(sizes.level_widths)
    return {
        "input_size": input_size,
        "word_len": sizes.word_len,
        "fusion_dim": widths[3],
        "pixel_decoder_in": widths,
        "pixel_decoder_conv": sizes.text_width,
        "pixel_decoder_mask": sizes.query_width,
        "num_dec": sizes.query_layers,
        "visual_in": widths[3],
        "text_in": sizes.sentence_width,
        "d_model": sizes.query_width,
    }


def _shown(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
