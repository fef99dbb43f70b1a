"""A score of whether anything is there: what it is fitted on, that it is calibrated, and its file."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import expit

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.presence import FEATURES, PresenceModel, features_of, fit, quality


@pytest.fixture(scope="module")
def drawn():
    """Statistics, and whether something is there, drawn from a logistic law with these coefficients."""
    rng = np.random.default_rng(0)
    statistics = rng.standard_normal((4000, 4)) * [0.2, 0.1, 2, 0.3] + [0.7, 0.6, -4, 0.4]
    wanted = np.array([-3.0, 6.0, 0.0, 0.5, -2.0])
    present = rng.random(4000) < expit(wanted[0] + statistics @ wanted[1:])
    return statistics, present, wanted


def model(row, **changes):
    fields = {"coefficients": {"paper": row, "released": -row}, "fitted_on": "grefcoco:train", "weights_sha256": "ab"}
    return PresenceModel(**{**fields, **changes})


def test_a_planted_law_is_found_again(drawn):
    statistics, present, wanted = drawn
    row = fit(statistics, present)
    spread = statistics.std(0)
    np.testing.assert_allclose(row[1:] * spread, wanted[1:] * spread, atol=0.15)
    score = model(row).score(statistics, "paper")
    assert np.abs(score - expit(wanted[0] + statistics @ wanted[1:])).max() < 0.1


def test_the_mean_probability_is_the_share_that_is_there(drawn):
    statistics, present, _ = drawn
    score = model(fit(statistics, present)).score(statistics, "paper")
    assert score.mean() == pytest.approx(present.mean(), abs=1e-4)
    for low in (0.1, 0.4, 0.7):
        band = (score > low) & (score < low + 0.2)
        assert present[band].mean() == pytest.approx(score[band].mean(), abs=0.06)


def test_kinds_that_are_told_apart_wholly_have_finite_weights():
    statistics = np.zeros((40, 4))
    statistics[:, 0] = np.linspace(0, 1, 40)  # the other statistics are constant
    present = statistics[:, 0] > 0.5
    row = fit(statistics, present)
    assert np.isfinite(row).all()
    np.testing.assert_array_equal(model(row).score(statistics, "paper") > 0.5, present)


@pytest.mark.parametrize(("present", "said"), [(True, "have a target"), (False, "have none")])
def test_samples_of_one_kind_are_refused(present, said):
    with pytest.raises(UserError, match=f"^all 5 expressions {said}; .* both kinds are wanted$"):
        fit(np.zeros((5, 4)), np.full(5, present))


def test_statistics_of_a_map_by_hand():
    probs = np.array([[0.9, 0.6, 0.5, 0.3], [0.2, 0.1, 0.0, 0.25]], np.float32)
    highest, inside, log_area, undecided = features_of(probs, 0.5)
    assert highest == np.float32(0.9)
    assert inside == pytest.approx(0.75, abs=1e-7)
    assert np.exp(log_area) == pytest.approx(2 / 8, abs=1e-5)
    assert undecided == 3 / 4, "of 0.9, 0.6, 0.5 and 0.3 three are below 0.75"
    nothing = features_of(np.zeros((2, 3), np.float32), 0.5)
    assert np.isfinite(nothing).all()
    assert nothing.tolist()[:2] == [0, 0]


def test_what_was_saved_is_loaded(tmp_path):
    saved = model(np.array([0.1, -2.5, 1e-17, 3.0, 4.0]))
    saved.save(tmp_path / "score.json")
    loaded = PresenceModel.load(tmp_path / "score.json")
    assert (loaded.fitted_on, loaded.weights_sha256) == (saved.fitted_on, saved.weights_sha256)
    for name, row in saved.coefficients.items():
        np.testing.assert_array_equal(loaded.coefficients[name], row)
    assert [path.name for path in tmp_path.iterdir()] == ["score.json"]
    statistics = np.random.default_rng(0).random((3, 4))
    np.testing.assert_array_equal(loaded.score(statistics, "released"), saved.score(statistics, "released"))


def spoilt(**changes):
    content = {"schema_version": 1, "fitted_on": "a:b", "weights_sha256": "0", "features": FEATURES}
    return json.dumps({**content, "coefficients": {"paper": [0.0] * 5}, **changes})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such presence file"),
        ("{", "is no presence file"),
        ("[]", "is no presence file"),
        ("{}", "is no presence file"),
        (spoilt(schema_version=2), "another version"),
        (spoilt(features=["highest"]), "another version"),
        (spoilt(coefficients={"paper": [0.0] * 4}), "another number of coefficients"),
        (spoilt(coefficients=[1]), "is no presence file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "score.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        PresenceModel.load(path)
    assert "\n" not in str(caught.value)
    assert "--fit-presence" in str(caught.value)


def test_a_model_is_not_changed_by_scoring(drawn):
    statistics, present, _ = drawn
    fitted = model(fit(statistics, present))
    before = {name: row.copy() for name, row in fitted.coefficients.items()}
    fitted.score(statistics, "paper")
    for name, row in before.items():
        np.testing.assert_array_equal(fitted.coefficients[name], row)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.fitted_on = "other"


def test_quality_counts_each_kind_for_itself():
    one = model(np.array([0.0, 1.0, 0.0, 0.0, 0.0]))
    statistics = np.zeros((5, 4))
    statistics[:, 0] = [1, 2, -1, -1, 3]
    present = np.array([True, True, True, False, False])
    assert quality(one, statistics, present, "paper") == (2 / 3, 1 / 2)
    assert quality(one, statistics, present, "released") == (1 / 3, 1 / 2)
