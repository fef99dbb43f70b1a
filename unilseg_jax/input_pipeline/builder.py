"""What all builders under `data/` are: files of a data set in, triplet records out.

A builder names its items (mostly pictures) and makes records of one; order, counts, the quarantine list, the
index and the report are made here. Records keep the order of the items, so that the index fits.
"""

import abc
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.coco_format import Fault
from unilseg_jax.input_pipeline.conversion import Conversion, SplitCounts, forget_refusal, image_key
from unilseg_jax.input_pipeline.index import IndexWriter
from unilseg_jax.input_pipeline.raw_files import Picture
from unilseg_jax.text.prompts import ClassName, all_of

MAX_SKIPPED = 0.01
"""Share of a set that may be broken before its conversion is an error."""


class SetConfig(tfds.core.BuilderConfig):
    """A configuration of a data set.

    Args:
        name: of the configuration.
        description: one line.
        published: sizes as its authors give them, by split: pictures, objects (masks), phrases; None where a
            size is not published or not counted that way.
        homepage: where the configuration comes from, if not from its builder's `HOMEPAGE`.
        fetch: in one line, what to fetch from where; "" where the files are the user's own.
        picture_places: where the pictures may lie in the raw folder, as patterns; none where `found_configs` finds
            the pictures themselves. `--pictures` may name another place, so `found_configs` does not ask for them.
        **more: of `tfds.core.BuilderConfig`.
    """

    def __init__(
        self,
        *,
        name: str,
        description: str,
        published: Mapping[str, tuple[int | None, int | None, int | None]] | None = None,
        homepage: str = "",
        fetch: str = "",
        picture_places: Sequence[str] = (),
        **more,
    ):
        super().__init__(name=name, description=description, **more)
        self.homepage, self.fetch, self.picture_places = homepage, fetch, tuple(picture_places)
        self.published = {
            split: SplitCounts(pictures=sizes[0], objects=sizes[1], phrases=sizes[2])
            for split, sizes in (published or {}).items()
        }


class _Info(tfds.core.DatasetInfo):
    """What a set says of itself, from this machine alone."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS would make a temporary folder for what its own bucket knows, and leave it behind."""


class TripletBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Converts the files of one data set. A subclass is called `Builder` and gives what has no body here.

    Attributes:
        HOMEPAGE: where the data set comes from.
        LICENCE: whose terms hold.
        SHARD_ITEMS: items that make one shard of a conversion shard by shard.
        conversion: the book of this conversion; a command replaces it to follow the progress.
        pictures: folder of the pictures where the user has them elsewhere; None looks in the raw folder.
        max_skipped: share of the set that may be broken.
        gather: puts together shards that were converted before (`sharded.converted_shards`) and returns
            their splits; None converts here, one item after the other.
    """

    # The first number is that of the record's schema, so that sets of two schemas never share a folder.
    VERSION = tfds.core.Version(f"{triplet.SCHEMA_VERSION}.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "See README.md beside this file."
    HOMEPAGE: ClassVar[str]
    LICENCE: ClassVar[str]
    SHARD_ITEMS: ClassVar[int] = 1000

    pictures: Path | None = None
    max_skipped: float = MAX_SKIPPED
    gather: Callable[["TripletBuilder"], list[tfds.core.SplitInfo]] | None = None

    def __init__(self, **of_tfds):
        super().__init__(**of_tfds)
        self.conversion = Conversion()

    @classmethod
    @abc.abstractmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations whose files lie in the raw folder."""

    @classmethod
    @abc.abstractmethod
    def wanted_files(cls) -> str:
        """Says in one line what the raw folder must hold."""

    @abc.abstractmethod
    def plan(self, raw: Path) -> Mapping[str, Sequence]:
        """Returns the items of each split, small, in the order of their records.

        An item's `repr` says all that it holds: by it an unfinished conversion knows what has changed.
        What is wrong with an index file is listed with `self.conversion.skip`; a picture that cannot become an
        item, or a folder or video of them, with `self.conversion.lose_unplanned`.

        Raises:
            UserError: nothing can be converted at all.
        """

    @abc.abstractmethod
    def records(self, split: str, item: Any) -> Iterator[dict]:
        """Makes the records of one item: mostly one, for an archive one per picture.

        Faults that leave the rest usable are listed with `self.conversion.skip`.

        Raises:
            UserError: the item cannot be used; it is listed under `item_file`.
        """

    def record(
        self,
        picture: Picture,
        *,
        image_id: str,
        task: str,
        masks: Sequence[triplet.RecordMask] = (),
        phrases: Sequence[triplet.RecordPhrase] = (),
        **more,
    ) -> dict[str, object]:
        """Makes the record of a picture.

        Args:
            picture: as it was read.
            image_id: names the picture within its split.
            task: one of `triplet.TASKS`.
            masks: may be empty.
            phrases: may be empty.
            **more: `coco_id`, `video`, `frame`.

        Raises:
            UserError: see `triplet.encode_record`.
        """
        return triplet.encode_record(
            image=picture.encoded,
            image_id=image_id,
            height=picture.height,
            width=picture.width,
            masks=masks,
            phrases=phrases,
            task=task,
            source=self.source,
            licence=self.LICENCE,
            **more,
        )

    def class_record(
        self,
        picture: Picture,
        masks: Mapping[int, UInt8[np.ndarray, "h w"] | Bool[np.ndarray, "h w"]],
        names: Iterable[ClassName],
        *,
        image_id: str,
        task: str,
        kind: str = "category",
        coco_id: int = -1,
        ignored: tuple[int, Bool[np.ndarray, "h w"]] | None = None,
    ) -> dict[str, object]:
        """Makes the record of a picture with one mask and the phrase "all CLASS" for each of its classes.

        Args:
            picture: as it was read.
            masks: {0, 1}, by label; a picture may have none.
            names: of all classes.
            image_id: names the picture within its split.
            task: one of `triplet.TASKS`.
            kind: of the masks and phrases.
            coco_id: the picture's id in COCO, -1 if it is no COCO picture.
            ignored: label and pixels that an evaluation leaves out, where pixels without a class count.

        Returns:
            The record; a mask's category is the class's phrase, its id the label.
        """
        phrases, found = {name.label: name.phrase for name in names}, Annotations(picture.height, picture.width)
        for label, mask in masks.items():
            found.add(mask, [all_of(phrases[label])], kind=kind, category=phrases[label], source_id=label)
        if ignored is not None and ignored[1].any():
            found.add(ignored[1], (), kind="ignored", source_id=ignored[0])
        return self.record(
            picture, image_id=image_id, task=task, masks=found.masks, phrases=found.phrases, coco_id=coco_id
        )

    def item_file(self, item: Any) -> str:
        """Returns the name under which an item that cannot be used is listed."""
        return str(item)

    def list_faults(self, split: str, file: str, faults: Sequence[Fault], known: Container[int]) -> None:
        """Lists what is left out of an annotation file in the form of COCO.

        Args:
            split: of the file.
            file: its name.
            faults: as its reader returns them.
            known: ids of its pictures; an entry of `images` without one of them is a picture that is lost.
        """
        for part, key, reason in faults:
            lost = part == "images" and not (isinstance(key, int) and key in known)
            lists = self.conversion.lose_unplanned if lost else self.conversion.skip
            lists(split, file, f"{part}: {reason}", id=key)

    @property
    def source(self) -> str:
        """The name that records carry."""
        return f"{self.name}/{self.builder_config.name}"

    @property
    def homepage(self) -> str:
        """Where the configuration comes from."""
        return self.builder_config.homepage or self.HOMEPAGE

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=self.get_metadata().description,
            features=triplet.features(),
            homepage=self.homepage,
            disable_shuffling=True,
        )

    def _download_and_prepare(self, *args, **kwargs) -> None:
        # Here the data set still has its temporary name, which tfds changes when all is written.
        self._indices: dict[str, IndexWriter] = {}
        super()._download_and_prepare(*args, **kwargs)
        directory = Path(self.data_dir)
        for split, index in self._indices.items():
            index.write(directory, split)
        self.finish(directory)

    def finish(self, directory: Path) -> None:
        """Writes the report, unless too much was broken.

        Raises:
            UserError: more than `max_skipped` of the set was skipped; the list of it stays.
        """
        self.conversion.check_skipped(self.max_skipped, directory.with_name(str(self.version)))
        self.conversion.write(
            directory, self.builder_config.published, source=self.source, licence=self.LICENCE, homepage=self.homepage
        )
        forget_refusal(directory.with_name(str(self.version)))

    def _generate_splits(self, dl_manager: tfds.download.DownloadManager, download_config: object) -> list:
        if self.gather is None:
            return super()._generate_splits(dl_manager, download_config)
        return self.gather(self) or self._refuse_nothing()

    def _refuse_nothing(self) -> NoReturn:
        first_fault = f"; the first fault: {self.conversion.skipped[0]}" if self.conversion.skipped else ""
        raise UserError(f"nothing of {self.source} could be converted{first_fault}")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        generators: dict[str, Iterator] = {}
        for split, items in self.plan(Path(dl_manager.manual_dir)).items():
            self.conversion.expect(split, len(items))
            index = IndexWriter()
            records = self._generate_examples(split, items, index)
            # tfds refuses a split without a record, so the first one decides whether the split is there.
            first = list(itertools.islice(records, 1))
            if first:
                generators[split] = itertools.chain(first, records)
                self._indices[split] = index
        if not generators:
            self._refuse_nothing()
        return generators

    def _generate_examples(self, split: str, items: Iterable, index: IndexWriter) -> Iterator[tuple[int, dict]]:
        for number, record in enumerate(self.checked_records(split, items)):
            index.add(record)
            # With `disable_shuffling` the key is the order.
            yield number, record

    def checked_records(self, split: str, items: Iterable, known: Iterable[int] = ()) -> Iterator[dict]:
        """Makes the records of items, and keeps the book of them.

        Args:
            split: name of the split.
            items: of the plan.
            known: keys (`image_key`) of pictures that other items have given.
        """
        seen = set(known)
        for item in items:
            try:
                for record in self.records(split, item):
                    key = image_key(record["image_id"])
                    if key in seen:
                        reason = f"the image id {record['image_id']!r} occurs twice; the first one is kept"
                        self.conversion.skip(split, self.item_file(item), reason)
                        continue
                    seen.add(key)
                    objects = sum(kind != "ignored" for kind in record["mask_kinds"])
                    self.conversion.wrote(split, objects, len(record["phrases"]))
                    yield record
            except UserError as error:
                self.conversion.lose_item(split, self.item_file(item), str(error))
            # A value that no builder thought of, such as a list for a number, or a number beyond 64 bits.
            except (OverflowError, TypeError) as error:
                self.conversion.lose_item(split, self.item_file(item), f"{type(error).__name__}: {error}")
            self.conversion.picture_done(split)
