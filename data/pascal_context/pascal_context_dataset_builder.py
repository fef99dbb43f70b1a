"""Pascal Context-59 as triplet records: a picture with a mask and the phrase "all CLASS" for each of its classes."""

from collections.abc import Iterator
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.label_maps import masks_of_labels
from unilseg_jax.text.prompts import class_names

from . import mat_format

# Relative to the raw folder.
VOC_FOLDERS = ("VOCdevkit/VOC2010", "VOC2010", ".")
MAT_FOLDERS = ("trainval", *(f"{folder}/trainval" for folder in VOC_FOLDERS[:2]))
# The splits are VOC's own, so its lists serve where the converted set's are not at hand.
LIST_FOLDERS = ("ImageSets/SegmentationContext", "ImageSets/Main")
SPLITS = ("train", "val")
PUBLISHED = {"train": (4998, None, None), "val": (5105, None, None)}
PICTURES = [f"{folder}/JPEGImages" for folder in VOC_FOLDERS]
VOC = "VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010/"


class Builder(TripletBuilder):
    """Converts the label maps of 59 classes (PNG) or the original ones of 459 (MATLAB)."""

    HOMEPAGE = "https://cs.stanford.edu/~roozbeh/pascal-context"
    LICENCE = "Pascal Context: no licence stated; pictures: VOC 2010, Flickr's terms of use"
    BUILDER_CONFIGS = (
        SetConfig(
            name="png",
            description="label maps of 59 classes, converted by others",
            published=PUBLISHED,
            fetch=f"label maps that others have converted (see its page), with {VOC}",
            picture_places=PICTURES,
        ),
        SetConfig(
            name="mat",
            description="original label maps, reduced to the 59 classes",
            published=PUBLISHED,
            fetch=f"trainval.tar.gz and labels.txt from https://cs.stanford.edu/~roozbeh/pascal-context/, with {VOC}",
            picture_places=PICTURES,
        ),
    )
    DEFAULT_BUILDER_CONFIG_NAME = "png"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations whose label maps lie in the raw folder."""
        folders = {"png": [f"{folder}/SegmentationClassContext" for folder in VOC_FOLDERS], "mat": MAT_FOLDERS}
        return [name for name, places in folders.items() if any((Path(raw) / place).is_dir() for place in places)]

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "VOC2010/ with SegmentationClassContext/, or trainval/*.mat with labels.txt and VOC2010/"

    def plan(self, raw: Path) -> dict[str, list[str]]:
        """Returns the names of the pictures of each split, as VOC writes them."""
        lists = raw_files.first_folder(
            raw, tuple(f"{voc}/{name}" for name in LIST_FOLDERS for voc in VOC_FOLDERS), "split lists"
        )
        voc = lists.parents[1]
        self._pictures = self.pictures or voc / "JPEGImages"
        if self.builder_config.name == "png":
            self._label_maps = voc / "SegmentationClassContext"
        else:
            self._label_maps = raw_files.first_folder(raw, MAT_FOLDERS, "label maps")
            self._mapping = self._read_mapping()
        files = {split: lists / f"{split}.txt" for split in SPLITS}
        splits = {split: raw_files.read_lines(file, "split list") for split, file in files.items() if file.is_file()}
        if not splits:
            raise UserError(f"no train.txt or val.txt in {str(lists)!r}")
        return splits

    def item_file(self, item: str) -> str:
        """Returns the picture's name."""
        return f"{item}.jpg"

    def records(self, split: str, item: str) -> Iterator[dict]:
        """Makes the record of a picture."""
        name = raw_files.plain_name(item, "picture")
        picture = raw_files.read_picture(self._pictures / f"{name}.jpg")
        size = (picture.height, picture.width)
        if self.builder_config.name == "png":
            labels = raw_files.read_label_map(self._label_maps / f"{name}.png", size)
        else:
            labels = mat_format.read_label_map(self._label_maps / f"{name}.mat", size)
            labels = mat_format.translate(labels, self._mapping)
        names = class_names("pascal_context59")
        masks = masks_of_labels(labels, [row.label for row in names])
        yield self.class_record(picture, masks, names, image_id=name, task="semantic")

    def _read_mapping(self) -> dict[int, int]:
        places = (self._label_maps.parent / "labels.txt", self._label_maps / "labels.txt")
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise UserError(f"no labels.txt beside {str(self._label_maps)!r}; it comes with the label maps")
        ids = mat_format.read_ids(file, lambda reason: self.conversion.skip("", file.name, reason))
        return mat_format.to_evaluated(ids, class_names("pascal_context59"))
