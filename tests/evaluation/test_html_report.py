"""The report in HTML."""

import base64
import html.parser
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.evaluation import pictures
from unilseg_jax.evaluation.html_report import write_report
from unilseg_jax.evaluation.judged import Judged

VOID = {"meta", "img", "br", "link", "input", "hr", "source"}


class Page(html.parser.HTMLParser):
    """A parsed page: its elements in order, each with attributes and text; refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} occurs twice"
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        assert tag == "rect", f"<{tag}/> is not closed in HTML"
        self.elements.append({"tag": tag, "text": "", **dict(attrs)})

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, kind=None):
        return [e for e in self.elements if e["tag"] == tag and (kind is None or kind in e.get("class", "").split())]


def judged(**changes):
    """Returns a black picture whose truth is its left half, the prediction its upper half."""
    target, prediction = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    target[:, :40] = prediction[:30] = True
    fields = {"image_id": "scene-1", "phrase": "the red circle", "kind": "attribute", "score": 1 / 3}
    arrays = {"image": np.zeros((60, 80, 3), np.uint8), "prediction": prediction, "target": target}
    return Judged(**{**fields, **arrays, **changes})


def passport(**changes):
    fields = {
        "metric": "referring",
        "protocol": "paper",
        "resize": "stretch",
        "threshold": 0.5,
        "images": 40,
        "phrases": 312,
        "complete": True,
        "weights_sha256": "9f86d081",
        "leakage": {"status": "clean"},
        "versions": {"jax": "0.10.2"},
    }
    return {**fields, **changes}


def number(groups=None, **changes):
    return {
        "passport": passport(**changes),
        "headline": "oiou",
        "metrics": {"oiou": 0.61234, "miou": math.nan, "pr_at_50": None, "count": 10834},
        "intervals": {"oiou": [0.60001, 0.62]},
        "groups": groups or {},
    }


def results(*numbers, **changes):
    fields = {"schema_version": 1, "benchmark": "refcoco", "split": "val", "task": "referring", "checkpoint": "runs/a"}
    return {**fields, "numbers": list(numbers) or [number()], **changes}


@pytest.fixture
def write(tmp_path):
    def write(*args):
        path = tmp_path / "new" / "report.html"
        write_report(path, *args)
        assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
        return Page(path.read_text(encoding="utf-8"))

    return write


def picture_of(source):
    kind, content = re.fullmatch(r"data:image/(jpeg|png);base64,([A-Za-z0-9+/=]+)", source).groups()
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.format == kind.upper()
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_head_names_what_was_judged(write):
    page = write(results(), {})
    assert page.all("title")[0]["text"] == page.all("h1")[0]["text"] == "refcoco val"
    facts = dict(zip([e["text"] for e in page.all("dt")], [e["text"] for e in page.all("dd")], strict=True))
    assert facts["checkpoint"] == "runs/a"
    assert facts["weights (SHA-256)"] == "9f86d081"
    assert facts["benchmark"] == "refcoco, split val"
    assert not page.all("p", "warning")


def test_the_head_says_which_sentences_are_how_many(write):
    every, first = number(phrases=21, sentences="all"), number(phrases=8, sentences="first")
    page = write(results(every, every, first, first), {})
    assert "21 (all sentences), 8 (first sentences)" in [element["text"] for element in page.all("dd")]


def test_the_table_has_a_row_for_each_number(write):
    page = write(results(number(), number(protocol="released", resize="letterbox", threshold=0.35)), {})
    assert [e["text"] for e in page.all("th") if e["scope"] == "col"] == ["protocol", "oIoU", "mIoU", "P@0.5", "count"]
    rows = [e["text"] for e in page.all("th") if e["scope"] == "row"]
    assert rows == ["paperstretch, threshold 0.5", "releasedletterbox, threshold 0.35"]
    cells = [e["text"] for e in page.all("td")]
    assert cells == ["0.61230.6000–0.6200", "–", "–", "10834"] * 2
    assert [e["text"][:6] for e in page.all("td", "headline")] == ["0.6123"] * 2
    assert "nan" not in " ".join(cells).lower()


def test_numbers_of_unlike_metrics_share_the_table(write):
    other = {**number(metric="semantic"), "metrics": {"miou": 0.5, "counted_classes": 23}, "intervals": {}}
    page = write(results(number(), other), {})
    cells = [e["text"] for e in page.all("td")]
    assert cells[5:] == ["–", "0.5000", "–", "–", "23"]
    assert [e["text"] for e in page.all("th")][-2:] == ["paperreferring", "papersemantic"]


def test_each_number_has_its_whole_passport_folded(write):
    page = write(results(number(threshold=None), number(protocol="released")), {})
    folded = page.all("details", "passport")
    assert len(folded) == 2
    assert not any("open" in e for e in folded)
    for said in ("threshold–", "images40", "completeyes", "leakage statusclean", "versions jax0.10.2"):
        assert said in folded[0]["text"].replace("\n", ""), said
    assert "threshold0.5\n" in folded[1]["text"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"complete": False}, ["Incomplete: 40 pictures were judged"]),
        ({"leakage": {"status": "leaky", "trained_on": 7}}, ["Leakage: these weights were trained .*trained_on: 7"]),
        ({"leakage": {"status": "unknown"}}, ["Leakage unknown: it is not known"]),
        ({"leakage": {"status": "leaky"}, "complete": False}, ["Leakage:", "Incomplete:"]),
    ],
)
def test_what_spoils_the_numbers_is_said_once(write, changes, said):
    page = write(results(number(**changes), number(protocol="released", **changes)), {})
    found = [e["text"] for e in page.all("p", "warning")]
    assert len(found) == len(said)
    for text, pattern in zip(found, said, strict=True):
        assert re.match(pattern, text)


@pytest.mark.parametrize("undefined", [math.nan, None])
def test_a_report_without_any_score_says_so(write, undefined):
    bare = number() | {"metrics": {"oiou": undefined, "count": 0}, "intervals": {}}
    (said,) = [e["text"] for e in write(results(bare), {}).all("p", "warning")]
    assert said.startswith("Not scored:")
    assert not write(results(bare, number()), {}).all("p", "warning")


def test_bars_are_sorted_and_named(write):
    groups = {"wall": {"iou": 0.25, "count": 3}, "sky": {"iou": 0.75}, "floor": {"iou": None}, "sea": {"iou": 1.2}}
    page = write(results(number(groups)), {})
    bars = page.all("rect", "bar")
    assert [e["width"] for e in bars] == ["100.00", "75.00", "25.00", "0.00"]
    assert [e["text"].strip() for e in page.all("li")] == [
        "seasea: IoU 1.20001.2000",
        "skysky: IoU 0.75000.7500",
        "wallwall: IoU 0.2500, count 30.2500",
        "floorfloor: IoU ––",
    ]


def test_there_is_a_bar_for_each_of_many_classes_and_numbers(write):
    groups = {f"class {index}": {"iou": index / 150, "oiou": 0.5} for index in range(150)}
    page = write(results(number(groups), number(groups, protocol="released"), number()), {})
    assert len(page.all("rect", "bar")) == len(page.all("li")) == 300
    # The headline number is what is drawn where groups have it.
    assert {e["width"] for e in page.all("rect", "bar")} == {"50.00"}


def test_each_example_shows_prediction_truth_and_errors(write):
    page = write(results(), {"best": [judged()], "median": [], "worst": [judged(phrase="all dog", score=math.nan)] * 2})
    assert [e["text"] for e in page.all("h3")] == ["Best", "Worst"]
    assert [e["text"] for e in page.all("h4")] == ["the red circle", "all dog", "all dog"]
    articles = [e["text"] for e in page.all("article")]
    assert "attribute · scene-1 · IoU 0.3333" in articles[0]
    assert "IoU –" in articles[1]
    images = page.all("img")
    assert [e["alt"] for e in images[:3]] == [
        f"{name} for “the red circle” in scene-1" for name in ("Prediction", "Truth", "Errors")
    ]
    assert len(images) == len(page.all("figcaption")) == 9
    drawn = picture_of(images[2]["src"])
    assert drawn.shape == (60, 80, 3)
    for (y, x), colour in {
        (15, 20): pictures.HIT,
        (45, 20): pictures.MISSED,
        (15, 60): pictures.SURPLUS,
        (45, 60): (0, 0, 0),
    }.items():
        assert np.abs(drawn[y, x] - 0.55 * np.array(colour)).max() <= 6, f"row {y}, column {x}"


def test_a_mask_is_shown_by_dimming_the_rest(write):
    image = np.full((60, 80, 3), 200, np.uint8)
    page = write(results(), {"best": [judged(image=image)]})
    prediction, truth = (picture_of(e["src"]) for e in page.all("img")[:2])
    for (y, x), where in {(10, 10): "both", (50, 10): "truth", (10, 70): "prediction", (50, 70): "none"}.items():
        assert abs(prediction[y, x].mean() - (200 if where in ("both", "prediction") else 80)) <= 4
        assert abs(truth[y, x].mean() - (200 if where in ("both", "truth") else 80)) <= 4


def test_a_soft_map_is_shown_in_grey_and_judged_at_one_half(write):
    soft = np.full((60, 80), 64, np.uint8)
    soft[:, :40] = 192
    page = write(results(task="saliency"), {"best": [judged(prediction=soft)]})
    prediction, _, drawn = (picture_of(e["src"]) for e in page.all("img"))
    assert np.abs(prediction[:, :36] - 192).max() <= 3
    assert np.abs(prediction[:, 44:] - 64).max() <= 3
    assert np.abs(drawn[:, :36] - 0.55 * np.array(pictures.HIT)).max() <= 6
    assert drawn[:, 44:].max() <= 6
    assert "IoU 0.3333" in page.all("article")[0]["text"]


@pytest.mark.parametrize("size", [(1000, 700), (30, 2000), (2000, 1), (29, 37)])
def test_pictures_of_any_shape_are_at_most_320_px(write, size):
    arrays = {"prediction": np.ones(size, bool), "target": np.zeros(size, bool)}
    page = write(results(), {"best": [judged(image=np.zeros((*size, 3), np.uint8), **arrays)]})
    for element in page.all("img"):
        height, width, _ = picture_of(element["src"]).shape
        assert (str(width), str(height)) == (element["width"], element["height"])
        assert max(height, width) == min(320, max(size))


def test_what_is_empty_is_said(write):
    nothing = np.zeros((60, 80), bool)
    cases = [judged(target=nothing), judged(prediction=nothing), judged(target=nothing, prediction=nothing)]
    said = [e["text"] for e in write(results(), {"worst": cases}).all("article")]
    for text, expected in zip(
        said, ("nothing is there", "nothing was found", "nothing is there and nothing was found"), strict=True
    ):
        assert f"IoU 0.3333, {expected}\n" in text


EVIL = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}&amp;"


def test_no_text_becomes_markup(write):
    evil = judged(phrase=EVIL, kind=EVIL, image_id=EVIL)
    spoilt = results(
        number({EVIL: {"oiou": 0.5, EVIL: 0.1}}, protocol=EVIL, leakage={"status": "leaky", EVIL: EVIL}),
        benchmark=EVIL,
        split=EVIL,
        checkpoint=EVIL,
    )
    spoilt["numbers"][0]["metrics"][EVIL] = 0.1
    page = write(spoilt, {"best": [evil], EVIL: [evil]})
    assert not page.all("script")
    assert len(page.all("img")) == 6
    assert not [e for e in page.elements if any(key.startswith("on") for key in e)]
    assert page.all("h4")[0]["text"] == EVIL
    assert page.all("img")[0]["alt"] == f"Prediction for “{EVIL}” in {EVIL}"


def test_texts_of_any_writing_can_be_written(write):
    page = write(results(), {"best": [judged(phrase="straße 木 🐕 \udc80 \u202eabc", image_id="")]})
    assert page.all("h4")[0]["text"] == "straße 木 🐕 \\udc80 \u202eabc"
    assert page.all("bdi")[0]["text"] == page.all("h4")[0]["text"]


def test_the_page_needs_nothing_from_elsewhere(write, tmp_path):
    curves = {name: np.linspace(0, 1, 256) for name in ("precision", "recall", "f_measure")}
    page = write(results(number({"a": {"oiou": 0.5}})), {"best": [judged()]}, curves)
    text = (tmp_path / "new" / "report.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    assert not {e["tag"] for e in page.elements} & {"script", "link", "iframe", "object", "embed", "base", "video"}
    assert not [e for e in page.elements if "href" in e or "srcset" in e or "xlink:href" in e]
    assert all(e["src"].startswith("data:image/") for e in page.elements if "src" in e)
    policy = next(e for e in page.all("meta") if e.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]
    assert all(e["alt"] for e in page.all("img"))
    assert len({e["id"] for e in page.elements if "id" in e}) == len([e for e in page.elements if "id" in e])


def test_curves_are_drawn_where_there_are_any(write):
    assert not write(results(), {}).all("img")
    curves = {name: np.linspace(0, 1, 256) for name in ("precision", "recall", "f_measure")}
    (image,) = write(results(), {}, curves).all("img")
    assert picture_of(image["src"]).shape == (400, 800, 3)


def test_equal_input_makes_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_report(tmp_path / name, results(number({"x": {"oiou": 0.5}})), {"best": [judged()]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numbers_that_lack_what_is_not_needed_can_be_shown(write):
    bare = {"passport": {"protocol": "paper"}, "metrics": {"miou": 0.5}}
    page = write(results(bare), {})
    assert [e["text"] for e in page.all("td")] == ["0.5000"]
    assert [e["text"].split(":")[0] for e in page.all("p", "warning")] == ["Leakage unknown", "Incomplete"]
