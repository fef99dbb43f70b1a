"""Salient object detection as triplet records: a picture, its one mask, "the most salient object".

A pixel belongs to the object from grey level 128 on (PASCAL-S: from half of its annotators on).

Differs: PySODMetrics takes levels above 128; masks of 0 and 255 are the same either way, of PASCAL-S's the level
128 itself is not.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.text import prompts

from .folders import Pair, PairFolders, find_named, find_others, pair_files

OBJECT_LEVEL = 128
"""Grey level from which on a pixel belongs to the object."""


class SalientConfig(SetConfig):
    """One of the data sets.

    Args:
        folders: for each split the name of its folder, in lower case without hyphens.
        own: the authors' folders of pictures and masks in it, where they are not the usual ones.
        own_alone: whether these mark the data set even where its name is missing.
        graded: whether a mask's grey levels are shares of annotators.
        **more: of `SetConfig`.
    """

    def __init__(
        self,
        *,
        folders: Mapping[str, str],
        own: tuple[str, str] | None = None,
        own_alone: bool = False,
        graded: bool = False,
        **more,
    ):
        super().__init__(**more)
        self.folders = folders
        self.own = own
        self.own_alone = own_alone
        self.graded = graded

    def find(self, raw: Path) -> dict[str, PairFolders]:
        """Returns the folders of the splits that lie in the raw folder."""
        return find_named(raw, self.folders, self.own, self.own_alone)


# How many masks are not empty is not published.
CONFIGS = [
    SalientConfig(
        name="ecssd",
        description="ECSSD: natural pictures with structure; the paper trains on it and reports on it",
        folders={"test": "ecssd"},
        own=("images", "ground_truth_mask"),
        own_alone=True,
        published={"test": (1000, None, None)},
        homepage="https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
        fetch="ECSSD from https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
    ),
    SalientConfig(
        name="duts",
        description="DUTS: train (DUTS-TR) and test (DUTS-TE)",
        folders={"train": "dutstr", "test": "dutste"},
        published={"train": (10553, None, None), "test": (5019, None, None)},
        fetch="DUTS-TR and DUTS-TE from http://saliencydetection.net/duts/",
    ),
    SalientConfig(
        name="sod",
        description="SOD: pictures of the Berkeley segmentation data set",
        folders={"test": "sod"},
        published={"test": (300, None, None)},
        homepage="http://elderlab.yorku.ca/SOD/",
        fetch="SOD from http://elderlab.yorku.ca/SOD/",
    ),
    SalientConfig(
        name="pascal_s",
        description="PASCAL-S: pictures of PASCAL VOC 2010, masks graded by twelve annotators",
        folders={"test": "pascals"},
        own=("datasets/imgs/pascal", "datasets/masks/pascal"),
        own_alone=True,
        graded=True,
        published={"test": (850, None, None)},
        homepage="http://cbs.ic.gatech.edu/salobj/",
        fetch="PASCAL-S from http://cbs.ic.gatech.edu/salobj/",
    ),
    SalientConfig(name="pairs", description="pictures and masks of your own, paired by their stems", folders={}),
]


class Builder(TripletBuilder):
    """Converts pairs of pictures and masks."""

    HOMEPAGE = "http://saliencydetection.net/duts/"
    LICENCE = "each set's own terms, for research; pictures: their owners (ImageNet, SUN, PASCAL VOC, BSDS, the web)"
    BUILDER_CONFIGS = CONFIGS
    DEFAULT_BUILDER_CONFIG_NAME = "duts"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations of which a split lies in the raw folder."""
        return [config.name for config in CONFIGS if _find(config, Path(raw))]

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "a folder ECSSD, DUTS-TR, DUTS-TE, SOD or PASCAL-S, or pictures and masks of equal stems"

    def plan(self, raw: Path) -> dict[str, list[Pair]]:
        """Returns the pairs of each split in the order of their names.

        Raises:
            UserError: the pictures are asked for elsewhere than beside the masks.
        """
        if self.pictures is not None:
            raise UserError("pictures are paired with masks within --raw; leave --pictures out")
        plan: dict[str, list[Pair]] = {}
        for split, prefix, folders in _find(self.builder_config, Path(raw)):
            pairing = pair_files(folders, prefix)
            plan.setdefault(split, []).extend(pairing.pairs)
            for file, reason in pairing.lost:
                self.conversion.lose_unplanned(split, file, reason)
            for file, reason in pairing.faults:
                self.conversion.skip(split, file, reason)
        return plan

    def item_file(self, item: Pair) -> str:
        """Returns the picture's image id with its ending."""
        return item.image_id + Path(item.picture).suffix

    def records(self, split: str, item: Pair) -> Iterator[dict]:
        """Makes the record of a pair; where no pixel is salient, the phrase matches nothing."""
        picture = raw_files.read_picture(Path(item.picture))
        levels = raw_files.read_mask(Path(item.mask), (picture.height, picture.width))
        mask = levels >= OBJECT_LEVEL
        found = Annotations(picture.height, picture.width)
        if mask.any():
            found.add(mask, [prompts.SALIENT], kind="salient")
        elif self.builder_config.graded or not levels.any():
            found.add_nothing(prompts.SALIENT)
        else:
            raise UserError(
                f"the mask's brightest level is {levels.max()}, of the object {OBJECT_LEVEL} to 255 is wanted; "
                "does it hold labels instead of grey levels?"
            )
        yield self.record(picture, image_id=item.image_id, masks=found.masks, phrases=found.phrases, task="salient")


def _find(config: SalientConfig, raw: Path) -> list[tuple[str, str, PairFolders]]:
    """Returns split, prefix of the image ids, and folders."""
    if config.name == "pairs":
        return find_others(raw, [folders for named in CONFIGS for folders in named.find(raw).values()])
    return [(split, "", folders) for split, folders in config.find(raw).items()]
