"""The report of an evaluation for people: one HTML file with numbers, bars and pictures.

It holds everything itself, needs neither network nor scripts, and is told so by its content security policy.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unilseg_jax.evaluation.curves import draw_curves
from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.pictures import HIT, MISSED, SURPLUS, errors, paint, shrink, spotlight
from unilseg_jax.interop.output import written_whole

SIDE = 320  # px, longer side of a picture
NONE = "–"
METRICS = {
    "oiou": "oIoU",
    "miou": "mIoU",
    "iou": "IoU",
    "giou": "gIoU",
    "ciou": "cIoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "macc": "mAcc",
    "aacc": "aAcc",
    "j": "J",
    "f": "F",
    "j_and_f": "J&F",
    "mae": "MAE",
    "s_measure": "S",
    **{
        f"{letter}_{how}": f"{letter.upper()} {how}"
        for letter in "fe"
        for how in ("mean", "max", "adaptive", "weighted")
    },
    **{f"pr_at_{share}": f"P@0.{share // 10}" for share in (50, 60, 70, 80, 90)},
}
"""How metrics are written; others go by their key, without underscores."""
_SCORES = {"video": "J&F", "video_objects": "J&F", "generalized": "gIoU"}
# What tells two numbers of one run apart; a row is named by those that differ.
_DISTINCTIVE = ("metric", "resize", "threshold", "prediction", "scored_at", "sentences", "vocabulary")
_BAR_METRICS = ("iou", "oiou", "miou")
_QUALITY = 85


def write_report(
    path: Path,
    results: dict,
    examples: Mapping[str, Sequence[Judged]],
    curves: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the report of one results.json; the file gets its name when it is whole.

    Equal input makes equal bytes.

    Args:
        path: HTML file to write; its folder is made if missing.
        results: the content of results.json; NaN and None both stand for "not defined".
        examples: predictions to show, by group: "best", "median", "worst".
        curves: of a saliency benchmark, see `curves.draw_curves`.

    Raises:
        UserError: it cannot be written.
        ValueError: a curve has not 256 values.
    """
    page = _template().render(
        title=f"{results['benchmark']} {results['split']}",
        warnings=_warnings(results["numbers"]),
        facts=_facts(results),
        **_table(results["numbers"]),
        charts=[chart for number in results["numbers"] if (chart := _chart(number, results["numbers"]))],
        curves=_data_uri(draw_curves(curves), "png") if curves else None,
        groups=[
            {"title": name.capitalize(), "examples": [_example(one, results.get("task")) for one in group]}
            for name, group in examples.items()
            if group
        ],
        colours={"hit": _css(HIT), "missed": _css(MISSED), "surplus": _css(SURPLUS)},
    )
    with written_whole(Path(path)) as temporary:
        # Half of a surrogate pair, as a data set's text may have it, cannot be written as it is.
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")


def _text(value: object) -> str:
    """Writes a value for people: 4 decimals, a dash for what is not defined."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _metric_name(key: str) -> str:
    return METRICS.get(key, key.replace("_", " "))


def _plain(value: object) -> str:
    """Writes a value of a passport, where a threshold is 0.35 and no measurement."""
    return str(value) if isinstance(value, float) and math.isfinite(value) else _text(value)


def _facts(results: dict) -> list[tuple[str, str]]:
    """Returns what holds for the whole file; of a field in which numbers differ, all values."""
    passports = [number["passport"] for number in results["numbers"]]

    def seen(field: str) -> str:
        return ", ".join(dict.fromkeys(_plain(passport.get(field)) for passport in passports)) or NONE

    phrases = seen("phrases")
    if len({passport.get("phrases") for passport in passports}) > 1:
        named = (f"{_plain(one.get('phrases'))} ({_plain(one.get('sentences'))} sentences)" for one in passports)
        phrases = ", ".join(dict.fromkeys(named))
    return [
        ("benchmark", f"{results['benchmark']}, split {results['split']}"),
        ("checkpoint", _text(results.get("checkpoint"))),
        ("weights (SHA-256)", seen("weights_sha256")),
        ("pictures", seen("images")),
        ("phrases", phrases),
        ("input size", seen("input_size")),
    ]


def _warnings(numbers: Sequence[dict]) -> list[dict[str, str]]:
    """Returns what a reader must know before the numbers, each thing once."""
    found: dict[tuple[str, str], None] = {}
    values = [value for number in numbers for value in number["metrics"].values()]
    if not any(isinstance(value, float) and math.isfinite(value) for value in values):  # counts are there always
        said = "of nothing that was asked is the truth known here; the benchmark's server counts a submission."
        found["Not scored", said] = None
    for number in numbers:
        passport = number["passport"]
        leakage = passport.get("leakage") or {}
        more = "; ".join(f"{key}: {_plain(value)}" for key, value in leakage.items() if key != "status")
        more = f" ({more})" if more else ""
        status = leakage.get("status", "unknown")
        if status == "unknown":
            found[
                "Leakage unknown", f"it is not known whether these weights have seen pictures of this benchmark{more}."
            ] = None
        elif status != "clean":
            found["Leakage", f"these weights were trained on pictures of this benchmark{more}."] = None
        if not passport.get("complete", False):
            counts = f"{_plain(passport.get('images'))} pictures were judged"
            said = f"{counts}, not the split as it was published; do not compare with published numbers."
            found["Incomplete", said] = None
    return [{"word": word, "text": text} for word, text in found]


def _name(number: dict, numbers: Sequence[dict]) -> tuple[str, str]:
    """Names a number by its protocol, and by what sets it apart from the others."""
    passports = [other["passport"] for other in numbers]
    parts = []
    for field in _DISTINCTIVE:
        if len({_plain(passport.get(field)) for passport in passports}) > 1:
            value = number["passport"].get(field)
            if value is not None:
                labelled = field in ("threshold", "scored_at", "sentences", "vocabulary")
                parts.append(f"{field.replace('_', ' ')} {_plain(value)}" if labelled else _plain(value))
    return _text(number["passport"].get("protocol")), ", ".join(parts)


def _table(numbers: Sequence[dict]) -> dict[str, list]:
    """Returns the columns' names and a row per number."""
    keys = list(dict.fromkeys(key for number in numbers for key in number["metrics"]))
    rows = []
    for number in numbers:
        name, more = _name(number, numbers)
        intervals = number.get("intervals") or {}
        cells = [
            {
                "text": _text(number["metrics"].get(key)),
                "headline": key == number.get("headline"),
                "interval": "–".join(map(_text, intervals[key])) if intervals.get(key) else "",
            }
            for key in keys
        ]
        passport = list(_flat(number["passport"]))
        label = f"{name}, {more}" if more else name
        rows.append({"name": name, "more": more, "label": label, "cells": cells, "passport": passport})
    return {"columns": [_metric_name(key) for key in keys], "rows": rows}


def _flat(value: Mapping, prefix: str = ""):
    """Yields the fields of a passport as texts, those of an inner one with both names."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", _plain(inner)


def _chart(number: dict, numbers: Sequence[dict]) -> dict | None:
    """Returns the bars of a number's groups, the highest first; None if it has none."""
    groups = number.get("groups") or {}
    known = dict.fromkeys(key for group in groups.values() for key in group)
    metric = next((key for key in (number.get("headline"), *_BAR_METRICS, *known) if key in known), None)
    if metric is None:
        return None

    def height(name: str) -> float:
        value = groups[name].get(metric)
        return -math.inf if value is None or not math.isfinite(value) else value

    bars = []
    for name in sorted(groups, key=lambda name: (-height(name), name)):
        numbers_of_it = ", ".join(f"{_metric_name(key)} {_text(value)}" for key, value in groups[name].items())
        width = f"{100 * min(max(height(name), 0.0), 1.0):.2f}"
        text = _text(groups[name].get(metric))
        bars.append({"name": name, "hover": f"{name}: {numbers_of_it}", "width": width, "text": text})
    label = ", ".join(filter(None, _name(number, numbers)))
    return {"title": f"{_metric_name(metric)}: {label}", "bars": bars}


def _example(judged: Judged, task: str | None) -> dict:
    """Returns the texts and the pictures of one prediction."""
    verdict = f"{_SCORES.get(task or '', 'IoU')} {_text(float(judged.score))}"
    there, found = judged.target.any(), judged.mask.any()
    if not there:
        verdict += ", nothing is there" if found else ", nothing is there and nothing was found"
    elif not found:
        verdict += ", nothing was found"
    if judged.is_soft:
        grey = shrink(judged.prediction, SIDE)
        prediction = np.repeat(grey[..., None], 3, axis=-1)
    else:
        prediction = spotlight(judged.image, judged.mask, SIDE)
    drawn = {
        "Prediction": prediction,
        "Truth": spotlight(judged.image, judged.target, SIDE),
        "Errors": paint(judged.image, errors(judged.mask, judged.target), SIDE, grey=True),
    }
    return {
        "phrase": judged.phrase,
        "kind": judged.kind,
        "image_id": judged.image_id,
        "verdict": verdict,
        "pictures": [
            {"name": name, "source": _jpeg(pixels), "width": pixels.shape[1], "height": pixels.shape[0]}
            for name, pixels in drawn.items()
        ],
    }


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    content = io.BytesIO()
    # Colours at full resolution: the edges of masks are what is looked at.
    Image.fromarray(pixels).save(content, "JPEG", quality=_QUALITY, subsampling=0)
    return _data_uri(content.getvalue(), "jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]}, {colour[1]}, {colour[2]})"
