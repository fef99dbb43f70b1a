"""Expressions in videos: frames in their order, frames without truth; and objects that four annotators name."""

import itertools
import zipfile

import numpy as np
import pytest
from planted_maps import Planted, Records, box, found_by, numbers_of, record

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation import submission
from unilseg_jax.evaluation.judges.video import VideoJudge
from unilseg_jax.evaluation.judges.video_objects import VideoObjectsJudge
from unilseg_jax.evaluation.protocols import PROTOCOLS
from unilseg_jax.evaluation.submission import Wanted
from unilseg_jax.input_pipeline.triplet import NOTHING, UNKNOWN
from unilseg_jax.metrics.video import contour_accuracy, region_similarity

BOTH = tuple(PROTOCOLS.values())
SHAPE = (12, 16)
CAT, DOG = box(SHAPE, 1, 7, 1, 7), box(SHAPE, 6, 11, 9, 15)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)


def level(mask, value=0.9):
    return np.where(mask, value, 0.05)


@pytest.fixture
def source():
    """Two videos, their frames in disorder; picture n is frame n of "a", 10 is that of "b"."""

    def frame(number, cat, dog, masks=(CAT,)):
        phrases = [("the cat", cat, "0", 1), ("the dog", dog, "7", 2)]
        return record(number, SHAPE, masks, phrases, video="a", frame=f"{number:05}")

    only = record(10, SHAPE, [DOG], [("the dog", 0, "0", 1)], video="b", frame="00005")
    frames = [frame(2, NOTHING, UNKNOWN, ()), frame(0, 0, NOTHING), only, frame(3, 0, UNKNOWN)]
    return Records([*frames, frame(1, 0, NOTHING)])


@pytest.fixture
def judge(source):
    found = {
        (0, "the cat"): level(CAT),
        (0, "the dog"): level(EMPTY),
        (1, "the cat"): level(EMPTY),
        (1, "the dog"): level(DOG),
        (2, "the cat"): level(FULL),
        (2, "the dog"): level(DOG),
        (3, "the cat"): level(CAT, 0.4),
        (3, "the dog"): level(EMPTY),
        (10, "the dog"): level(DOG),
    }
    maps = {(number, one.resize, text): probs for (number, text), probs in found.items() for one in BOTH}
    return VideoJudge(source, Planted(maps), BOTH)


def test_frames_come_in_their_order_whatever_the_order_of_records(judge):
    assert [name for name, _ in judge.videos] == ["a", "b"]
    assert [frame.name for frame in judge.frames(0)] == ["00000", "00001", "00002", "00003"]
    judge.judge(0)
    numbers = [number for number, resize, _ in judge.predictor.asked if resize == "stretch"]
    assert numbers == [0, 0, 1, 1, 2, 2, 3, 3]


def test_expressions_are_scored_over_the_frames_whose_truth_is_known(judge):
    rows = found_by(judge).rows
    assert rows["paper"]["expression_id"].tolist() == ["a/0", "a/7", "b/0"]
    assert rows["paper"]["frames"].tolist() == [4, 2, 1]
    # The cat: found; missed; the whole picture where it is not (no contours agree); missed above 0.5.
    # The dog: rightly not found; invented; its other frames have no truth.
    assert rows["paper"]["j"].tolist() == [(1 + 0 + 0 + 0) / 4, (1 + 0) / 2, 1]
    assert rows["paper"]["f"].tolist() == [(1 + 0 + 1 + 0) / 4, (1 + 0) / 2, 1]
    assert rows["released"]["j"].tolist() == [2 / 4, 1 / 2, 1], "the cat of the last frame is above 0.35"
    numbers = numbers_of(judge)
    paper, released = (numbers[name, "mask", "all"]["metrics"] for name in ("paper", "released"))
    assert paper["j_and_f"] == pytest.approx(((0.25 + 0.5 + 1) / 3 + (0.5 + 0.5 + 1) / 3) / 2, abs=1e-12)
    assert released["j"] == pytest.approx((0.5 + 0.5 + 1) / 3, abs=1e-12)
    assert (paper["count"], numbers["paper", "mask", "all"]["passport"]["phrases"]) == (3, 3)


def test_the_order_of_records_changes_nothing(judge, source):
    before = {key: entry["metrics"] for key, entry in numbers_of(judge).items()}
    for order in itertools.islice(itertools.permutations(range(5)), 1, 120, 17):
        other = VideoJudge(Records([source.records[place] for place in order]), judge.predictor, BOTH)
        assert {key: entry["metrics"] for key, entry in numbers_of(other).items()} == before


def test_every_frame_goes_into_the_submission(judge, tmp_path):
    judge.masks_folder = tmp_path
    parts = []
    for unit in range(2):
        judge.judge(unit)
        parts.append(judge.masks_file(BOTH[0], unit))
    submission.join(parts, tmp_path / "whole.zip")
    wanted = {
        "a": Wanted(("0", "7"), [f"{number:05}" for number in range(4)], SHAPE),
        "b": Wanted(("0",), ["00005"], SHAPE),
    }
    submission.check(tmp_path / "whole.zip", wanted)
    with zipfile.ZipFile(judge.masks_file(BOTH[1], 0)) as released, zipfile.ZipFile(parts[0]) as paper:
        name = "Annotations/a/0/00003.png"
        assert released.read(name) != paper.read(name), "cut elsewhere"


def test_a_drawn_expression_has_its_score_and_a_frame_with_truth(judge):
    scores = found_by(judge).samples["score"].tolist()
    drawn = [judge.draw(0, 0), judge.draw(0, 1), judge.draw(1, 0)]
    assert [one.score for one in drawn] == pytest.approx(scores, abs=1e-12)
    assert [one.phrase for one in drawn] == ["the cat", "the dog", "the dog"]
    np.testing.assert_array_equal(drawn[1].prediction, DOG)
    view = judge.view(0, 1)
    assert view.known == [True, True, False, False]
    assert not any(target.any() for target in view.targets)
    assert len(view.images) == len(view.predictions) == 4


def test_a_frame_that_lacks_an_expression_is_left_out_of_it(judge, source):
    bare = record(1, SHAPE, [], [("the dog", UNKNOWN, "7", 2)], video="a", frame="00001")
    records = [bare if one["frame"] == "00001" else one for one in source.records]
    other = VideoJudge(Records(records), judge.predictor, BOTH)
    assert found_by(other).rows["paper"]["frames"].tolist() == [3, 1, 1]
    assert len(other.view(0, 0).images) == 3
    assert len(VideoJudge(Records([record(0, SHAPE, [], [], video="c", frame="0")]), judge.predictor, BOTH).judge(0)[0])


def test_a_benchmark_without_truths_has_submissions_and_no_numbers(judge, tmp_path):
    hidden = record(0, SHAPE, [], [("the cat", UNKNOWN, "0", -1)], video="a", frame="00000")
    other = VideoJudge(Records([hidden]), judge.predictor, BOTH)
    other.masks_folder = tmp_path
    assert numbers_of(other) == {}
    submission.check(other.masks_file(BOTH[0], 0), {"a": Wanted(("0",), ["00000"], SHAPE)})


BIRD = box(SHAPE, 0, 3, 10, 16)
OBJECTS = {1: CAT, 2: DOG, 3: BIRD}


def objects_frame(number, masks, names, video="a"):
    """Returns a frame whose expressions are ids ANNOTATOR-LABEL; `masks` are those of the labels that it shows."""
    places = {label: place for place, label in enumerate(masks)}
    phrases = []
    for name in names:
        label = int(name.rpartition("-")[2])
        phrases.append((f"object {name}", places.get(label, NOTHING), name, label))
    return record(number, SHAPE, list(masks.values()), phrases, video=video, frame=f"{number:05}")


def best_match(predictions, truths, count):
    """Returns the greatest mean (J + F) / 2 over all one-to-one matches, as J and F, by trying them all.

    Args:
        predictions: by candidate the masks of the frames.
        truths: by frame a label map.
        count: of objects.
    """
    padded = predictions + [[EMPTY] * len(truths)] * max(0, count - len(predictions))
    table = {}
    for one, masks in enumerate(padded):
        for label in range(1, count + 1):
            pairs = [(mask, truth == label) for mask, truth in zip(masks, truths, strict=True)]
            table[one, label] = [
                np.mean([measure(*pair) for pair in pairs]) for measure in (region_similarity, contour_accuracy)
            ]
    return max(
        (
            np.mean([table[one, label] for label, one in enumerate(chosen, 1)], axis=0)
            for chosen in itertools.permutations(range(len(padded)), count)
        ),
        key=np.sum,
    ).tolist()


def truths_of(frames):
    maps = []
    for masks in frames:
        labels = np.zeros(SHAPE, np.int64)
        for label, mask in masks.items():
            labels[mask] = label
        maps.append(labels)
    return maps


def objects_judge(frames, names, probs):
    """Returns a judge of one video.

    Args:
        frames: of each the masks by label.
        names: ids of the expressions.
        probs: by (frame, id) the map; it is 0 where none is given.
    """
    records = [objects_frame(number, masks, names) for number, masks in enumerate(frames)]
    maps = {
        (number, one.resize, f"object {name}"): probs.get((number, name), level(EMPTY))
        for number in range(len(frames))
        for name in names
        for one in BOTH
    }
    return VideoObjectsJudge(Records(records), Planted(maps), BOTH)


SHIFTED = np.roll(CAT, 2, axis=1)
FRAMES = [OBJECTS, {1: SHIFTED, 2: DOG}]  # the bird has flown


@pytest.fixture
def objects():
    """Annotator x mixes up cat and dog, y lacks the bird, z names a fourth object that the first frame lacks."""
    names = ("x-1", "y-1", "z-1", "x-2", "y-2", "z-2", "x-3", "z-3", "z-4")
    probs = {(number, "x-1"): level(DOG) for number in range(2)}
    probs |= {(0, "x-2"): level(CAT), (1, "x-2"): level(CAT), (0, "x-3"): level(BIRD), (1, "x-3"): level(BIRD)}
    probs |= {(0, "y-1"): level(CAT), (1, "y-1"): level(SHIFTED), (0, "y-2"): level(FULL, 0.6)}
    # The fourth name means the bird, the third nothing that is there.
    probs |= {(0, "z-4"): level(BIRD), (0, "z-1"): level(CAT, 0.45), (0, "z-3"): level(box(SHAPE, 9, 12, 0, 3))}
    return objects_judge(FRAMES, names, probs)


def test_predicted_objects_are_matched_with_the_true_ones(objects):
    rows = found_by(objects).rows["paper"]
    by_annotator = {
        name: [(j, f) for one, j, f, _ in zip(*rows.values(), strict=True) if one.endswith(name)] for name in "xyz"
    }
    truths = truths_of(FRAMES)
    predictions = {
        "x": [[DOG, DOG], [CAT, CAT], [BIRD & ~DOG, BIRD & ~DOG]],
        # 0.9 wins over 0.6 on the cat, and what is left of the whole picture is the second object's.
        "y": [[CAT, SHIFTED], [~CAT, EMPTY]],
        "z": [[EMPTY, EMPTY], [EMPTY, EMPTY], [box(SHAPE, 9, 12, 0, 3), EMPTY], [BIRD, EMPTY]],
    }
    for name, masks in predictions.items():
        wanted = best_match(masks, truths, 3)
        assert np.mean(by_annotator[name], axis=0) == pytest.approx(wanted, abs=1e-12), name
    assert rows["frames"].tolist() == [2] * 9
    metrics = numbers_of(objects)["paper", "label map", "all"]["metrics"]
    means = {name: best_match(masks, truths, 3) for name, masks in predictions.items()}
    assert metrics["j"] == pytest.approx(np.mean([j for j, _ in means.values()]), abs=1e-12)
    assert metrics["j_and_f"] == pytest.approx(np.mean(list(means.values())), abs=1e-12)
    assert metrics["j_x"] == pytest.approx(means["x"][0], abs=1e-12)
    assert metrics["count"] == 9


def test_the_cut_tells_the_protocols_apart(objects):
    numbers = numbers_of(objects)
    paper, released = (numbers[name, "label map", "all"]["metrics"] for name in ("paper", "released"))
    assert paper["j_z"] < released["j_z"], "the cat of z is at 0.45"
    assert paper["j_x"] == released["j_x"]


def test_an_object_that_an_annotator_lacks_is_drawn_without_an_expression(objects):
    samples = found_by(objects).samples
    assert samples["phrase"].tolist() == [
        *("object x-1", "object x-2", "object x-3"),
        *("object y-1", "object y-2", "(no expression)"),
        *("object z-1", "object z-2", "object z-3"),
    ]
    for number, score in enumerate(samples["score"].tolist()):
        drawn = objects.draw(0, number)
        assert drawn.score == pytest.approx(score, abs=1e-12)
        assert drawn.phrase == samples["phrase"][number]
    view = objects.view(0, 0)
    np.testing.assert_array_equal(view.targets[1], SHIFTED)
    np.testing.assert_array_equal(view.predictions[1], CAT)  # what x calls its second object


def test_the_highest_label_of_the_first_frame_counts_the_objects():
    late = {1: CAT, 3: BIRD, 4: box(SHAPE, 9, 12, 0, 3)}
    frames = [{1: CAT, 3: BIRD}, late]  # the second object is never seen, the fourth comes too late
    names = ("x-1", "x-2", "x-3", "x-4")
    exact = {(number, f"x-{label}"): level(mask) for number in range(2) for label, mask in late.items()}
    judge = objects_judge(frames, names, exact)
    rows = found_by(judge).rows["paper"]
    assert rows["expression_id"].tolist() == ["a/1/x", "a/2/x", "a/3/x"]
    assert rows["j"].tolist() == rows["f"].tolist() == [1, 1, 1], "an object that is never there wants an empty mask"
    np.testing.assert_array_equal(judge.view(0, 2).targets[1], BIRD)


def test_labels_above_the_highest_that_was_found_are_no_candidates():
    # The second object leaves at once, and an empty mask would fit it; but only a second name that was found
    # nowhere could give one, and it comes after the highest label that occurs.
    frames = [{1: CAT, 2: DOG}] + [{1: CAT}] * 3
    wrong = box(SHAPE, 9, 12, 0, 3)
    probs = {(number, "x-1"): level(CAT) for number in range(4)} | {(n, "x-2"): level(wrong) for n in range(4)}
    assert found_by(objects_judge(frames, ("x-1", "x-2", "x-3"), probs)).rows["paper"]["j"].tolist() == [1, 0]
    # The highest one makes all below it candidates.
    probs = {(number, "x-1"): level(CAT) for number in range(4)} | {(n, "x-3"): level(wrong) for n in range(4)}
    assert found_by(objects_judge(frames, ("x-1", "x-2", "x-3"), probs)).rows["paper"]["j"].tolist() == [1, 3 / 4]


def test_the_most_probable_object_has_a_pixel_and_the_first_of_equals():
    frames = [{1: CAT, 2: DOG}]
    both = CAT | DOG
    probs = {(0, "x-1"): level(both, 0.5), (0, "x-2"): np.where(DOG, 0.8, np.where(CAT, 0.5, 0.49))}
    rows = found_by(objects_judge(frames, ("x-1", "x-2"), probs)).rows
    assert rows["paper"]["j"].tolist() == [1, 1], "0.5 is enough, and on the cat the first one wins"
    assert rows["released"]["j"][1] < 1, "0.49 is more than 0.35"


def test_frames_may_name_their_expressions_in_any_order():
    names = ("x-1", "x-2")
    first = objects_frame(0, {1: CAT, 2: DOG}, names)
    second = objects_frame(1, {1: CAT, 2: DOG}, names[::-1])
    maps = {
        (n, one.resize, f"object x-{label}"): level(OBJECTS[label]) for n in (0, 1) for label in (1, 2) for one in BOTH
    }
    judge = VideoObjectsJudge(Records([first, second]), Planted(maps), BOTH)
    assert found_by(judge).rows["paper"]["j"].tolist() == [1, 1]


def test_a_video_whose_first_frame_shows_nothing_is_refused():
    judge = objects_judge([{}, {1: CAT}], ("x-1",), {})
    with pytest.raises(UserError, match="the first frame of 'a' shows no object"):
        judge.judge(0)


def test_pixels_that_are_not_judged_belong_to_nobody():
    void = box(SHAPE, 0, 12, 8, 16)
    frame = record(0, SHAPE, [CAT, (255, void)], [("object x-1", 0, "x-1", 1)], video="a", frame="00000")
    maps = {(0, one.resize, "object x-1"): level(CAT | void) for one in BOTH}
    rows = found_by(VideoObjectsJudge(Records([frame]), Planted(maps), BOTH)).rows["paper"]
    assert (rows["j"].tolist(), rows["f"].tolist()) == ([1.0], [1.0])
    single = record(0, SHAPE, [CAT, (255, void)], [("the cat", 0, "0", 1)], video="a", frame="00000")
    maps = {(0, one.resize, "the cat"): level(CAT | void) for one in BOTH}
    assert found_by(VideoJudge(Records([single]), Planted(maps), BOTH)).rows["paper"]["j"].tolist() == [1.0]


def test_a_video_whose_frames_ask_for_different_things_makes_no_submission():
    frames = [
        record(number, SHAPE, [CAT], [("the cat", 0, name, 1)], video="a", frame=f"{number:05}")
        for number, name in enumerate(("0", "1"))
    ]
    judge = VideoJudge(Records(frames), Planted({}), BOTH)
    with pytest.raises(UserError, match="the frames of 'a' do not ask for the same expressions"):
        judge.wanted_masks(1)
    assert judge.wanted_masks(0) == {}
