"""The user's API on a small model with random weights: what it returns and refuses, what it computes once."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_model import small_pretrained

from unilseg_jax import Segmenter
from unilseg_jax import segmenter as api
from unilseg_jax.errors import UserError
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.interop.torch_export import export_released, write_released
from unilseg_jax.ops.geometry import normalise
from unilseg_jax.segmenter import Prediction
from unilseg_jax.text.tokenizer import PhraseCutWarning, tokenize
from unilseg_jax.training.model_directory import save_pretrained

TESTS = Path(__file__).resolve().parent
PHRASES = ["the dog on the left", "all sky", "a wheel"]


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(small_pretrained(), prompts_at_once=2)


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def prediction(segmenter, picture):
    return segmenter.predict(picture, PHRASES)


def test_predict_returns_probabilities_and_masks_at_the_pictures_size(prediction):
    assert prediction.probs.shape == (3, 50, 80)
    assert prediction.probs.dtype == np.float32
    assert prediction.masks.dtype == bool
    assert prediction.phrases == tuple(PHRASES)
    assert prediction.threshold == 0.35
    assert 0 <= prediction.probs.min() < prediction.probs.max() <= 1
    np.testing.assert_array_equal(prediction.masks, prediction.probs > 0.35)


def test_phrases_together_are_phrases_one_by_one(segmenter, picture, prediction):
    for phrase, probs in zip(PHRASES, prediction.probs, strict=True):
        alone = segmenter.predict(picture, [phrase])
        np.testing.assert_allclose(alone.probs[0], probs, atol=1e-5)
    assert np.abs(prediction.probs[0] - prediction.probs[1]).max() > 1e-4


def test_a_path_and_a_pil_image_are_the_array(segmenter, picture, prediction, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", Image.fromarray(picture)):
        np.testing.assert_array_equal(segmenter.predict(source, PHRASES).probs, prediction.probs)


def test_stretch_is_the_papers_protocol(segmenter, picture, prediction):
    stretched = segmenter.predict(picture, PHRASES, resize="stretch")
    assert stretched.threshold == 0.5
    assert stretched.probs.shape == prediction.probs.shape
    assert np.abs(stretched.probs - prediction.probs).max() > 1e-4


def test_a_threshold_can_be_given(segmenter, picture, prediction):
    middle = float(np.median(prediction.probs[0]))
    cut = segmenter.predict(picture, PHRASES, threshold=middle)
    assert cut.threshold == middle
    assert 0.4 < cut.masks[0].mean() < 0.6


def test_an_encoded_image_serves_any_number_of_phrases(segmenter, picture, prediction):
    encoded = segmenter.encode(picture)
    segmented = segmenter.segment(encoded, PHRASES)
    assert isinstance(segmented, Prediction)
    np.testing.assert_array_equal(segmented.probs, prediction.probs)


def with_encoder(change):
    """Returns the small model with another image encoder."""
    params = small_pretrained().variables["params"]
    params = params | {"image_encoder": jax.tree.map(change, params["image_encoder"])}
    return dataclasses.replace(small_pretrained(), variables=small_pretrained().variables | {"params": params})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: Segmenter(small_pretrained(), input_size=32), r"another input size \(64, here 32\)"),
        (lambda: Segmenter(small_pretrained(), dtype="bfloat16"), r"another dtype \(float32, here bfloat16\)"),
        (lambda: Segmenter(with_encoder(np.negative)), "other weights"),
    ],
    ids=["input size", "dtype", "weights"],
)
def test_an_image_that_was_encoded_otherwise_is_refused(segmenter, picture, other, message):
    with pytest.raises(UserError, match=f"the picture was encoded with {message}; encode it with this Segmenter"):
        other().segment(segmenter.encode(picture), PHRASES)


def test_an_image_that_the_same_encoder_has_seen_is_taken(segmenter, picture, prediction):
    again = Segmenter(with_encoder(np.copy), prompts_at_once=2).segment(segmenter.encode(picture), PHRASES)
    np.testing.assert_array_equal(again.probs, prediction.probs)


def compiled():
    """Returns how many shapes the image encoder and the decoder were compiled for."""
    return api._encode._cache_size(), api._decode._cache_size()


def test_the_model_is_compiled_once_per_size_and_not_per_number_of_phrases(segmenter, picture, prediction):
    segmenter.predict(picture, PHRASES)
    before = compiled()
    segmenter.predict(picture[:40], [*PHRASES, *PHRASES, "grass"])
    assert compiled() == before


@pytest.mark.parametrize("prompts_at_once", [1, 2])
def test_another_number_of_phrases_compiles_nothing(picture, caplog, prompts_at_once):
    segmenter = Segmenter(small_pretrained(), prompts_at_once=prompts_at_once)
    segmenter.predict(picture, PHRASES)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for number in (4, 5):
            assert len(segmenter.predict(picture, ["grass"] * number).probs) == number
    assert not [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()]


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    tokens = tokenize([*PHRASES, *PHRASES[::-1]], small_pretrained().architecture.word_len)
    return normalise(images), tokens.reshape(2, 3, -1)


@pytest.fixture(scope="module")
def logits(batch):
    return Segmenter(small_pretrained(), prompts_at_once=1).logits(*batch)


def test_a_batch_is_its_images_and_prompts_one_by_one(segmenter, logits, batch):
    assert logits.dtype == jnp.float32
    assert logits.shape == (2, 3, 16, 16)
    for i, p in np.ndindex(2, 3):
        alone = segmenter.logits(batch[0][i : i + 1], batch[1][i : i + 1, p])
        np.testing.assert_allclose(alone[0], logits[i, p], atol=2e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_one_prompt_per_image_needs_no_prompts_axis(segmenter, logits, batch):
    images, tokens = batch
    single = segmenter.logits(jnp.asarray(images), jnp.asarray(tokens[:, 0]))
    assert single.shape == (2, 16, 16)
    np.testing.assert_allclose(single, logits[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("images", "tokens", "message"),
    [
        (np.zeros((1, 64, 64, 3), np.uint8), np.ones((1, 17), int), r"uint8 of shape \(1, 64, 64, 3\)"),
        (np.zeros((64, 64, 3), np.float32), np.ones((1, 17), int), r"\(64, 64, 3\).*\(b, h, w, 3\)"),
        (np.zeros((1, 3, 64, 64), np.float32), np.ones((1, 17), int), r"\(b, h, w, 3\)"),
        (np.zeros((1, 20, 64, 3), np.float32), np.ones((1, 17), int), "at least 29 px"),
        (np.zeros((1, 64, 64, 3), np.float32), np.ones((1, 17)), r"float64 of shape \(1, 17\).*integers"),
        (np.zeros((1, 64, 64, 3), np.float32), np.ones(17, int), r"\(b, l\) or \(b, p, l\)"),
        (np.zeros((2, 64, 64, 3), np.float32), np.ones((1, 17), int), r"\(2, 64, 64, 3\).*\(1, 17\)"),
        (np.zeros((1, 64, 64, 3), np.float32), np.ones((1, 78), int), "at most 77"),
        (np.zeros((1, 64, 64, 3), np.float32), np.full((1, 17), 49408), "ids 49408"),
        (np.zeros((1, 64, 64, 3), np.float32), np.full((1, 17), -1), "ids -1"),
    ],
)
def test_wrong_shapes_and_types_are_refused(segmenter, images, tokens, message):
    with pytest.raises(ValueError, match=message):
        segmenter.logits(images, tokens)


@pytest.mark.parametrize("phrases", [[], ["dog", " "], "dog", ["dog", "\u200b"], ["..."]])
def test_missing_and_empty_phrases_are_refused(segmenter, picture, phrases):
    with pytest.raises(UserError, match="phrase"):
        segmenter.predict(picture, phrases)


@pytest.mark.parametrize(
    "options",
    [
        {"resize": "crop"},
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"threshold": float("nan")},
    ],
)
def test_impossible_options_are_refused(segmenter, picture, options):
    with pytest.raises(UserError, match=next(iter(options))):
        segmenter.predict(picture, PHRASES, **options)


WRONG_TYPES = """
import numpy as np
from small_model import small_pretrained
from unilseg_jax import Segmenter
from unilseg_jax.errors import UserError

segmenter, picture = Segmenter(small_pretrained()), np.zeros((8, 8, 3), np.uint8)
for call in (
    lambda: segmenter.segment("a.png", ["dog"]),
    lambda: segmenter.segment(picture, ["dog"]),
    lambda: segmenter.predict(picture, None),
    lambda: segmenter.predict(picture, iter(["dog"])),
    lambda: segmenter.predict(picture, ["dog"], threshold="0.5"),
    lambda: segmenter.predict(picture, ["dog"], threshold=np.array([0.4, 0.6])),
):
    try:
        call()
    except UserError as error:
        print(error)
"""


def test_wrong_types_are_refused_in_one_line():
    """In a process of its own, since the tests check all types before."""
    path = os.pathsep.join(str(place) for place in (TESTS, TESTS.parent))
    command = [sys.executable, "-c", WRONG_TYPES]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "encoded is a str; what encode() returned is wanted (predict() takes a picture)",
        "encoded is a ndarray; what encode() returned is wanted (predict() takes a picture)",
        "phrases is a NoneType; a list of at least one text is wanted",
        "phrases is a list_iterator; a list of at least one text is wanted",
        "threshold = '0.5'; a number between 0 and 1 is wanted",
        "threshold = array([0.4, 0.6]); a number between 0 and 1 is wanted",
    ]


def test_a_long_phrase_warns_once(segmenter, picture):
    with pytest.warns(PhraseCutWarning) as caught:
        segmenter.predict(picture, ["dog " * 30])
    assert len(caught) == 1


@pytest.mark.parametrize("options", [{"input_size": 28}, {"dtype": "float16"}, {"prompts_at_once": 0}])
def test_an_impossible_segmenter_is_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Segmenter(small_pretrained(), **options)


def test_a_model_of_another_vocabulary_takes_no_phrases(picture):
    sizes = dataclasses.replace(small_pretrained().architecture, vocab_size=512)
    other = Segmenter(Pretrained(architecture=sizes, variables={}, input_size=64))
    with pytest.raises(UserError, match="vocabulary of 512 tokens"):
        other.predict(picture, PHRASES)


def test_a_model_directory_is_loaded(prediction, picture, tmp_path):
    save_pretrained(tmp_path / "model", small_pretrained())
    loaded = Segmenter.from_pretrained(tmp_path / "model", prompts_at_once=2)
    assert loaded._prompts_at_once == 2
    assert loaded.input_size == small_pretrained().input_size
    assert loaded.architecture == small_pretrained().architecture
    np.testing.assert_allclose(loaded.predict(picture, PHRASES[:1]).probs, prediction.probs[:1], atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pth", marks=pytest.mark.torch)])
def test_a_file_of_the_released_layout_is_loaded(batch, logits, tmp_path, suffix):
    tensors, _ = export_released(small_pretrained())
    write_released(tmp_path / f"model{suffix}", tensors)
    loaded = Segmenter.from_pretrained(tmp_path / f"model{suffix}", input_size=64)
    assert loaded.input_size == 64
    images, tokens = batch
    np.testing.assert_allclose(loaded.logits(images, tokens[:, 0]), logits[:, 0], atol=1e-5)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        Segmenter.from_pretrained(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="path of the checkpoint is empty"):
        Segmenter.from_pretrained("")
