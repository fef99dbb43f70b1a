"""Many phrases on one picture, by a model whose logits are written down here, and once by a real one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from small_model import SMALL
from tiny_model import random_variables

from unilseg_jax import Segmenter, shapes
from unilseg_jax.errors import UserError
from unilseg_jax.evaluation import label_map, predictor, text_features
from unilseg_jax.evaluation.label_map import LabelMap
from unilseg_jax.evaluation.predictor import Predictor, split
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.models.unilseg import Output, UniLSeg
from unilseg_jax.ops.geometry import RESIZES
from unilseg_jax.text.prompts import all_of, class_names
from unilseg_jax.text.tokenizer import PhraseCutWarning

SIZE = 62  # pixels: 16 cells of 4, the last one half over the edge
CLASSES = [all_of(name.phrase) for name in class_names("ade20k")]
RESIZE_NAMES = tuple(RESIZES)


class Stub(UniLSeg):
    """Stands in for the model: every word's number and every picture matter, but it compiles at once."""

    def setup(self):
        pass

    def encode_image(self, images):
        return [images[:, ::4, ::4]]

    def encode_text(self, tokens):
        return jnp.sin(tokens[..., None] * jnp.arange(1.0, 4.0).reshape(1, 1, 1, 3)), tokens.sum(-1)[..., None] / 1e5

    def decode_features(self, maps, words, sentence, is_word):
        vector = (words * is_word[..., None]).sum(2) + sentence
        return Output(layer_logits=jnp.einsum("bhwc,bpc->bphw", maps[0], vector)[None], features={})


@pytest.fixture
def stubbed(monkeypatch):
    """Exchanges the model."""
    monkeypatch.setattr(predictor, "UniLSeg", Stub)


COMPILED = {
    "image encoder": predictor.encode_image,
    "text encoder": text_features.encode_text,
    "decoder": predictor.decode_features,
    "upsampling": predictor._upsample,
    "label map": label_map._compete,
}


def stub(**options) -> Predictor:
    return Predictor(Pretrained(architecture=SMALL, variables={}, input_size=SIZE), **options)


def picture(height=50, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("count", "buckets", "wanted"),
    [
        (1, (1, 2, 4), [1]),
        (3, (1, 2, 4), [4]),
        (4, (1, 2, 4), [4]),
        (9, (1, 2, 4), [4, 4, 1]),
        (11, (1, 2, 4), [4, 4, 4]),
        (5, (2,), [2, 2, 2]),
        (2, (1,), [1, 1]),
    ],
)
def test_phrases_fill_large_buckets_and_the_rest_goes_into_one_that_holds_it(count, buckets, wanted):
    assert split(count, buckets) == wanted


def interpolated(maps, size, resize):
    """Returns maps (p, 16, 16) at a picture's size, pixel by pixel, in float32 in the order that is promised."""
    one = np.float32(1)
    found = np.empty((len(maps), *size), np.float32)
    rows, columns = (
        [place(pixel, pixels, max(size), axis, resize) for pixel in range(pixels)] for axis, pixels in enumerate(size)
    )
    for y, (top, down) in enumerate(rows):
        for x, (left, right) in enumerate(columns):
            along = [maps[:, row, left] * (one - right) + maps[:, row, left + 1] * right for row in (top, top + 1)]
            found[:, y, x] = along[0] * (one - down) + along[1] * down
    return found


def place(pixel, pixels, longest, axis, resize):
    """Returns the cell before a pixel's centre and the share of the next one."""
    if resize == "stretch":
        position = (pixel + 0.5) * 16 / pixels - 0.5
    else:
        scale = SIZE / longest
        position = (pixel * scale + (SIZE - scale * pixels) / 2) * 15 / (SIZE - 1)
    position = min(max(position, 0), 15)
    low = min(int(position), 14)
    return low, np.float32(position - low)


def planted(classes):
    """Returns logits of classes of which the second half is the first once more, and every fifth is constant above."""
    logits = np.random.default_rng(0).standard_normal((classes, 16, 16)).astype(np.float32)
    logits[classes // 2 :] = logits[: classes - classes // 2]
    logits[::5, :8] = np.float32(2.3)
    return logits


@pytest.mark.parametrize("resize", RESIZE_NAMES)
@pytest.mark.parametrize("buckets", [(1,), (1, 2, 4, 8), (64,)], ids=str)
def test_the_streamed_label_map_is_argmax_over_all_maps_to_the_bit(resize, buckets):
    size, logits = (45, 70), planted(150)
    best, start = LabelMap(size, resize, SIZE, tile=32), 0
    for bucket in split(150, buckets):
        # What fills a bucket up would win everywhere.
        part = np.full((bucket, 16, 16), 99, np.float32)
        count = min(bucket, 150 - start)
        part[:count] = logits[start : start + count]
        best.update(jnp.asarray(part), count)
        start += bucket
    labels, probs = best.result()
    maps = interpolated(logits, size, resize)
    np.testing.assert_array_equal(labels, maps.argmax(0))
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-maps.max(0).astype(np.float64))), atol=1e-6)
    np.testing.assert_array_equal(best._tiles[32, 0][0][:13], maps.max(0)[32:, :32])
    # Ties are everywhere, and the first one wins.
    assert (maps == maps.max(0)).sum(0).min() > 1
    assert labels.max() < 75
    assert len(np.unique(labels)) > 20


@pytest.mark.torch
@pytest.mark.parametrize("size", [(45, 70), (16, 16), (7, 9), (128, 31), (1, 1)], ids=str)
def test_stretched_logits_are_resized_as_torch_does(size):
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(1).standard_normal((5, 16, 16)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)
    theirs = theirs[0].numpy()
    best = LabelMap(size, "stretch", SIZE)
    best.update(jnp.asarray(logits), 5)
    labels, probs = best.result()
    np.testing.assert_allclose(np.log(probs / (1 - probs)), theirs.max(0), atol=1e-4)
    decided = np.sort(theirs, axis=0)[-1] - np.sort(theirs, axis=0)[-2] > 1e-5
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(labels[decided], theirs.argmax(0)[decided])


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize("resize", RESIZE_NAMES)
def test_all_classes_of_a_picture_are_the_unstreamed_result(resize):
    one = stub(buckets=(1, 2, 4, 8))
    encoded = one.encode(picture(), resize)
    # A class that is asked for twice ties with itself, in another bucket and in the same.
    phrases = [*CLASSES, *CLASSES[:40]]
    labels, probs = one.label_map(encoded, phrases)
    maps = interpolated(one.logits(encoded, phrases), (50, 80), resize)
    np.testing.assert_array_equal(labels, maps.argmax(0))
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-maps.max(0))), atol=1e-6)
    assert (labels.dtype, probs.dtype) == (np.int32, np.float32)
    assert len(np.unique(labels)) > 5
    assert labels.max() < 150


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize("resize", RESIZE_NAMES)
def test_probabilities_are_the_segmenters(resize):
    pretrained = Pretrained(architecture=SMALL, variables={}, input_size=SIZE)
    segmenter, one = Segmenter(pretrained), Predictor(pretrained)
    wanted = segmenter.predict(picture(), CLASSES[:7], resize=resize)
    found = one.probabilities(one.encode(picture(), resize), CLASSES[:7])
    np.testing.assert_array_equal(found, wanted.probs)
    assert found.shape == (7, 50, 80)
    assert np.ptp(found, axis=0).max() > 0.5


@pytest.mark.usefixtures("stubbed")
def test_compilations_are_as_many_as_buckets_for_any_picture_and_number_of_phrases(caplog):
    for compiled in COMPILED.values():
        compiled.clear_cache()
    one = stub(buckets=(1, 2, 4))
    for count in (1, 2, 3):
        one.label_map(one.encode(picture(), "stretch"), CLASSES[:count])
        one.probabilities(one.encode(picture(), "letterbox"), CLASSES[:count])
    wanted = {"image encoder": 1, "text encoder": 1, "decoder": 3, "upsampling": 3, "label map": 3}
    assert {name: compiled._cache_size() for name, compiled in COMPILED.items()} == wanted
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for seed, (height, width) in enumerate([(29, 31), (64, 200), (513, 40)]):
            for resize, count in (("stretch", seed + 1), ("letterbox", 7 + seed)):
                encoded = one.encode(picture(height, width, seed), resize)
                assert one.label_map(encoded, CLASSES[:count])[0].shape == (height, width)
                assert one.probabilities(encoded, CLASSES[:count]).shape == (count, height, width)
    assert not [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()]
    assert {name: compiled._cache_size() for name, compiled in COMPILED.items()} == wanted


@pytest.mark.usefixtures("stubbed")
def test_no_array_holds_all_classes_at_the_pictures_size(monkeypatch):
    one, largest = stub(buckets=(4,)), [0]
    compete = label_map._compete

    def watched(best, logits, *rest):
        found = compete(best, logits, *rest)
        alive = sum(array.nbytes for array in jax.live_arrays())
        largest[0] = max(largest[0], alive)
        return found

    monkeypatch.setattr(label_map, "_compete", watched)
    before = sum(array.nbytes for array in jax.live_arrays())
    one.label_map(one.encode(picture(300, 400), "stretch"), CLASSES)
    assert 0 < largest[0] - before < 20 * 300 * 400 * 4


@pytest.mark.usefixtures("stubbed")
def test_a_phrase_goes_through_the_text_encoder_once():
    one = stub()
    first = one.text(["the dog", "all sky", "the dog"])
    assert (one.cache.computed, len(one.cache)) == (2, 2)
    np.testing.assert_array_equal(first.words[0], first.words[2])
    again = one.text(["all sky", "a cup"])
    assert one.cache.computed == 3
    np.testing.assert_array_equal(again.words[0], first.words[1])
    np.testing.assert_array_equal(again.sentence[0], first.sentence[1])
    np.testing.assert_array_equal(again.is_word[0], one.tokens(["all sky"])[0] != 0)
    assert len(again) == 2
    one.cache.clear()
    one.text(["all sky"])
    assert one.cache.computed == 4


@pytest.mark.usefixtures("stubbed")
def test_the_phrases_last_asked_for_are_kept_and_no_more():
    one = stub(cached_phrases=3)
    one.text(CLASSES[:3])
    one.text(CLASSES[:1])
    one.text(CLASSES[3:4])  # pushes out the second
    assert (one.cache.computed, len(one.cache)) == (4, 3)
    one.text([CLASSES[0], CLASSES[2], CLASSES[3]])
    assert one.cache.computed == 4
    one.text(CLASSES[1:2])
    assert one.cache.computed == 5
    assert len(one.text(CLASSES[:10])) == 10
    assert len(one.cache) == 3
    none = stub(cached_phrases=0)
    assert len(none.text(CLASSES[:2])) == 2
    assert len(none.cache) == 0


def all_of_it(one, phrases):
    encoded = one.encode(picture(seed=3), "letterbox")
    return (*one.label_map(encoded, phrases), one.probabilities(encoded, phrases))


@pytest.fixture
def real(monkeypatch):
    """A model of the two encoders and the vision path, compiled in half the time."""
    for module, name in ((predictor, "encode_image"), (predictor, "decode_features"), (text_features, "encode_text")):
        monkeypatch.setattr(module, name, quick_jit(getattr(module, name).__wrapped__, static_argnums=0))
    sizes = dataclasses.replace(SMALL, pre_fusion=False, language_path=False)
    inputs = jnp.zeros((1, SIZE, SIZE, 3)), jnp.ones((1, 1, sizes.word_len), jnp.int32)
    variables = jax.tree.map(np.asarray, random_variables(UniLSeg(sizes), *inputs))
    pretrained = Pretrained(architecture=sizes, variables=variables, input_size=SIZE)
    return lambda: Predictor(pretrained, buckets=(2,))


def test_a_real_model_gives_the_same_bits_whatever_was_asked_before(real):
    phrases, fresh, used = [CLASSES[5], "the dog on the left", CLASSES[90]], real(), real()
    wanted = all_of_it(fresh, phrases)
    used.text(["the dog on the left", "something else"])
    used.label_map(used.encode(picture(30, 31), "stretch"), [CLASSES[90], "a cup", CLASSES[7], CLASSES[5]])
    for found, right in zip(all_of_it(used, phrases), wanted, strict=True):
        np.testing.assert_array_equal(found, right)
    assert np.abs(wanted[2][0] - wanted[2][1]).max() > 1e-4


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 28}, "input_size"),
        ({"dtype": "float16"}, "dtype"),
        ({"buckets": ()}, "buckets"),
        ({"buckets": (0, 2)}, "buckets"),
        ({"cached_phrases": -1}, "cached_phrases"),
    ],
)
def test_an_impossible_predictor_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        stub(**options)


@pytest.mark.usefixtures("stubbed")
def test_wrong_phrases_and_pictures_are_refused():
    one = stub()
    for phrases in ([], ["dog", " "], "dog"):
        with pytest.raises(UserError, match="phrase"):
            one.text(phrases)
    with pytest.raises(UserError, match="resize"):
        one.encode(picture(), "crop")
    with pytest.warns(PhraseCutWarning):
        one.text(["dog " * 30])
    other = Predictor(
        Pretrained(architecture=dataclasses.replace(SMALL, vocab_size=512), variables={}, input_size=SIZE)
    )
    with pytest.raises(UserError, match="vocabulary of 512 tokens"):
        other.text(["dog"])


def test_the_stub_has_the_strides_of_the_model():
    assert shapes.level_sizes(SIZE, SIZE)[0] == (16, 16)
