"""Ref-DAVIS17 as triplet records: a frame of DAVIS 2017 with its objects, each described four times."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, triplet
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.builder import TripletBuilder
from unilseg_jax.input_pipeline.conversion import Conversion, likely_size
from unilseg_jax.input_pipeline.json_file import read_json
from unilseg_jax.input_pipeline.video_frames import (
    Expression,
    VideoConfig,
    VideoFrame,
    add_labelled,
    is_object_id,
    object_id,
)

# Two annotators, each with the first frame and with the full video before them; results are the mean of the four.
ANNOTATORS = ("annot1", "annot1_full_video", "annot2", "annot2_full_video")
SPLITS = ("train", "val")
VOID = 255  # label of pixels that are not evaluated
EXPRESSIONS = (
    "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/video-segmentation/"
    "video-object-segmentation-with-language-referring-expressions"
)
# As the expressions' files write them, and as DAVIS names its sequences.
SEQUENCE_TYPOS = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}

# Published sizes: pictures; 61 objects in val, each described four times.
CONFIGS = [
    VideoConfig(
        name="ref_davis17",
        description="DAVIS 2017 at 480p with the expressions of two annotators",
        published={"train": (4209, None, None), "val": (1999, None, None)},
        published_videos={"train": (60, None), "val": (30, 244)},
        fetch=f"davis_text_annotations.zip from {EXPRESSIONS}; DAVIS-2017-Unsupervised-trainval-480p.zip from "
        "https://davischallenge.org/davis2017/code.html",
        picture_places=("DAVIS/JPEGImages/480p", "davis/JPEGImages/480p", "JPEGImages/480p"),
    )
]


class Builder(TripletBuilder):
    """Converts the files of DAVIS 2017 and the expressions for it."""

    HOMEPAGE = EXPRESSIONS
    LICENCE = "DAVIS: CC BY 4.0, see its terms of use; expressions: see their homepage"
    BUILDER_CONFIGS = CONFIGS
    DEFAULT_BUILDER_CONFIG_NAME = "ref_davis17"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configuration if the raw folder has expressions."""
        return ["ref_davis17"] if any(_expressions_file(raw, name).is_file() for name in ANNOTATORS) else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return (
            "davis_text_annotations/Davis17_annot1.txt (and _annot1_full_video, _annot2, _annot2_full_video) "
            "and DAVIS/ with JPEGImages/480p, Annotations_unsupervised/480p and ImageSets/2017"
        )

    def plan(self, raw: Path) -> dict[str, list[VideoFrame]]:
        """Returns the frames of both splits, sequence by sequence."""
        davis = raw_files.first_folder(raw, ("DAVIS", "davis", "."), "DAVIS 2017")
        self._frames = self.pictures or raw_files.first_folder(davis, ("JPEGImages/480p",), "frames")
        # Those of the unsupervised task: the expressions count its objects.
        self._masks = raw_files.first_folder(davis, ("Annotations_unsupervised/480p",), "masks")
        expressions = _load_expressions(raw, _load_categories(davis, self.conversion), self.conversion)
        lists = {split: davis / "ImageSets" / "2017" / f"{split}.txt" for split in SPLITS}
        sequences = {
            split: raw_files.read_lines(path, "list of sequences") for split, path in lists.items() if path.is_file()
        }
        if not sequences:
            raise UserError(f"no lists of sequences in {str(davis / 'ImageSets' / '2017')!r}; train.txt or val.txt")
        plan = self._plan_sequences(sequences, expressions)
        known = {name for names in sequences.values() for name in names}
        for name in (name for name in expressions if len(plan) == len(SPLITS) and name not in known):
            self.conversion.skip("", "davis_text_annotations", f"no list has the sequence {name!r}", video=name)
        self.conversion.facts["videos"] = self.builder_config.count_videos(plan)
        return plan

    def item_file(self, item: VideoFrame) -> str:
        """Returns the frame's name."""
        return item.image_id

    def records(self, split: str, item: VideoFrame) -> Iterator[dict]:
        """Makes the record of a frame."""
        picture = raw_files.read_picture(item.below(self._frames, ".jpg"))
        size = (picture.height, picture.width)
        found = Annotations(*size)
        labels = raw_files.read_label_map(item.below(self._masks, ".png"), size)
        add_labelled(found, item.expressions, labels)
        if (labels == VOID).any():
            found.add(labels == VOID, (), kind="ignored", source_id=VOID)
        yield self.record(
            picture,
            image_id=item.image_id,
            task="video",
            masks=found.masks,
            phrases=found.phrases,
            video=item.video,
            frame=item.frame,
        )

    def _plan_sequences(
        self, sequences: Mapping[str, list[str]], expressions: Mapping[str, list[Expression]]
    ) -> dict[str, list[VideoFrame]]:
        """Returns the frames of each split; a sequence that cannot be used is listed, and its frames are lost."""
        plan: dict[str, list[VideoFrame]] = {split: [] for split in sequences}
        lengths, lost = [], []
        for split, names in sequences.items():
            for name in names:
                try:
                    frames = self._sequence(split, name, expressions)
                except UserError as error:
                    lost.append((split, name, str(error)))
                else:
                    plan[split] += frames
                    lengths.append(len(frames))
        for split, name, reason in lost:
            self.conversion.lose_unplanned(split, name, reason, self._count_frames(name) or likely_size(lengths))
        return plan

    def _sequence(self, split: str, name: str, expressions: Mapping[str, list[Expression]]) -> list[VideoFrame]:
        """Returns the frames of a sequence; those of which only the label map is there are among them.

        Raises:
            UserError: the sequence cannot be used.
        """
        listing = raw_files.list_files(self._frames / raw_files.plain_name(name, "sequence"), (".jpg",))
        if name not in expressions:
            raise UserError("the sequence has no expressions")
        for file, reason in listing.faults:
            self.conversion.lose_unplanned(split, f"{name}/{file}", reason)
        frames = sorted(listing.files.keys() | _stems(self._masks / name, ".png"))
        if not frames:
            raise UserError("the sequence has no frames")
        return [VideoFrame(name, frame, tuple(expressions[name])) for frame in frames]

    def _count_frames(self, name: str) -> int:
        """Returns how many frames a sequence that cannot be used has, 0 if nothing tells."""
        try:
            raw_files.plain_name(name, "sequence")
        except UserError:
            return 0
        return len(_stems(self._frames / name, ".jpg") | _stems(self._masks / name, ".png"))


def _stems(folder: Path, ending: str) -> set[str]:
    """Returns the stems of a folder's files, none if it is not there."""
    try:
        return set(raw_files.list_files(folder, (ending,)).files)
    except UserError:
        return set()


def _expressions_file(raw: Path, annotator: str) -> Path:
    return raw / "davis_text_annotations" / f"Davis17_{annotator}.txt"


def _load_expressions(
    raw: Path, categories: Mapping[tuple[str, int], str], conversion: Conversion
) -> dict[str, list[Expression]]:
    """Reads the expressions of each sequence, object by object; `annotator-object` is the id of one."""
    found: dict[str, dict[tuple[int, int], Expression]] = {}
    for place, annotator in enumerate(ANNOTATORS):
        path = _expressions_file(raw, annotator)
        try:
            lines = _decoded(raw_files.read_bytes(path, "file of expressions")).splitlines()
        except UserError as error:
            conversion.skip("", path.name, str(error))
            continue
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                name, label, text = _parsed(line)
                of_sequence = found.setdefault(name, {})
                if (label, place) in of_sequence:
                    raise UserError(f"a second expression for object {label} of {name!r}; the first one is kept")
                category = categories.get((name, label), "")
                of_sequence[label, place] = Expression(f"{annotator}-{label}", text, label, category)
            except UserError as error:
                conversion.skip("", path.name, f"line {number}: {error}")
    return {name: [of_sequence[key] for key in sorted(of_sequence)] for name, of_sequence in found.items()}


def _decoded(content: bytes) -> str:
    """Decodes a file of expressions: the second annotator's are latin-1."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _parsed(line: str) -> tuple[str, int, str]:
    """Returns sequence, object and text of a line `sequence object "text"`."""
    parts = line.split(maxsplit=2)
    if len(parts) != 3:
        raise UserError(f'{line.strip()!r} is no expression; wanted is: sequence object "text"')
    text = parts[2].strip().strip('"').strip()
    if not triplet.has_words(text):
        raise UserError(f"the expression {text!r} says nothing")
    return SEQUENCE_TYPOS.get(parts[0], parts[0]), object_id(parts[1]), text


def _load_categories(davis: Path, conversion: Conversion) -> dict[tuple[str, int], str]:
    """Reads the classes of objects, if DAVIS's file of them is there."""
    path = davis / "davis_semantics.json"
    if not path.is_file():
        return {}
    try:
        content = read_json(path, "file of classes", functools.partial(conversion.skip, "", path.name))
        if not isinstance(content, dict):
            raise UserError("the file has no sequences by name")
        return {
            (name, int(key)): category
            for name, objects in content.items()
            for key, category in (objects.items() if isinstance(objects, dict) else ())
            if is_object_id(key) and triplet.has_words(category)
        }
    except UserError as error:
        conversion.skip("", path.name, f"{error}; the masks have no category")
        return {}
