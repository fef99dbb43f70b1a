"""What is there of a data set: its raw files, and whether its prepared configurations are whole."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unilseg_jax.errors import UserError, denial
from unilseg_jax.input_pipeline.conversion import QUARANTINE_FILE, SplitCounts, differences, read_report
from unilseg_jax.input_pipeline.index import read_index
from unilseg_jax.input_pipeline.prepared import finished_versions, split_sizes
from unilseg_jax.input_pipeline.sources import TripletSource
from unilseg_jax.input_pipeline.triplet import SCHEMA_VERSION

ANY_PICTURES = ("image_folder", "image_folder")
"""Data set and configuration that can be made of any folder with a picture in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetState:
    """What is there of one configuration.

    Attributes:
        name: of the data set.
        config: of the configuration.
        raw: folder that holds its raw files, None if there is none.
        pictures_wanted: where in it the pictures may lie, if they are not there; else empty.
        fetch: what to fetch from where, "" where the files are the user's own.
        directory: of the prepared set, None if it is not prepared.
        schema: version of the prepared set's records, None if it is not prepared.
        counts: of the prepared set, by split.
        published: sizes as the data set's authors give them, by split.
        damage: what is wrong with the prepared set, "" if nothing.
        denied: why the prepared set may not be read, "" if it may; then nobody knows whether it is damaged.
        without_index: splits of the prepared set that have no index; one is made when they are first trained on.
        left_over: files of a conversion that was interrupted or refused.
    """

    name: str
    config: str
    raw: Path | None = None
    pictures_wanted: tuple[str, ...] = ()
    fetch: str = ""
    directory: Path | None = None
    schema: int | None = None
    counts: Mapping[str, SplitCounts] = dataclasses.field(default_factory=dict)
    published: Mapping[str, SplitCounts] = dataclasses.field(default_factory=dict)
    damage: str = ""
    denied: str = ""
    without_index: tuple[str, ...] = ()
    left_over: tuple[Path, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether this code can read the prepared set."""
        return self.directory is not None and not (self.damage or self.denied) and self.schema == SCHEMA_VERSION

    @property
    def convertible(self) -> bool:
        """Whether its raw files are there, with pictures, and still to be converted."""
        return self.raw is not None and not (self.pictures_wanted or self.usable or self.denied)

    @property
    def missing(self) -> list[str]:
        """What is to be fetched: the configuration, or the splits that the prepared set lacks."""
        if not self.fetch or self.damage or self.denied or self.convertible:
            return []
        if not self.usable:
            return [f"{self.name}/{self.config}"]
        empty = (split for split in self.published if not self.counts.get(split, SplitCounts()).pictures)
        return [f"{self.name}/{self.config}:{split}" for split in empty]

    @property
    def off(self) -> list[str]:
        """What of the counts is not as published, a line per split."""
        return differences(self.counts, self.published)


def inspect_sets(
    builders: Mapping[str, type], data_dir: Path, raw_folders: Sequence[Path] = ()
) -> dict[str, list[SetState]]:
    """Looks at all configurations of all data sets.

    A raw folder of one of them, in one or around one, is not taken for a folder of other pictures.

    Args:
        builders: by the data sets' names.
        data_dir: folder of all prepared data sets.
        raw_folders: folders that may hold raw files.
    """
    states = {name: inspect_set(name, builder, data_dir, raw_folders) for name, builder in builders.items()}
    name, config = ANY_PICTURES
    if any(state.raw for state in states.get(name, ())):
        others = [builder for other, builder in builders.items() if other != name]
        taken = {folder for folder in raw_folders for other in others if claimed_folders(other, [folder])}
        around = taken.union(*(folder.parents for folder in taken))
        free = [folder for folder in raw_folders if folder not in around and not taken & {*folder.parents}]
        raw = claimed_folders(builders[name], free).get(config)
        states[name] = [dataclasses.replace(s, raw=raw) if s.config == config else s for s in states[name]]
    return states


def inspect_set(name: str, builder_class: type, data_dir: Path, raw_folders: Sequence[Path] = ()) -> list[SetState]:
    """Looks at all configurations of a data set.

    Args:
        name: of the data set.
        builder_class: its builder.
        data_dir: folder of all prepared data sets.
        raw_folders: folders that may hold raw files; of several that do, the first one is given.
    """
    raw = claimed_folders(builder_class, raw_folders)
    states = []
    for config in builder_class.BUILDER_CONFIGS:
        folder = data_dir / name / config.name
        state = SetState(
            name=name,
            config=config.name,
            raw=raw.get(config.name),
            pictures_wanted=_pictures_wanted(config, raw[config.name]) if config.name in raw else (),
            fetch=config.fetch,
            published=config.published,
            left_over=tuple(
                path
                for pattern in ("incomplete.*", "unfinished_*", f"*.{QUARANTINE_FILE}")
                for path in sorted(folder.glob(pattern))
            ),
        )
        versions = finished_versions(folder)
        states.append(_prepared(state, versions[-1]) if versions else state)
    return states


def _prepared(state: SetState, directory: Path) -> SetState:
    """Adds what is known of a prepared set."""
    state = dataclasses.replace(state, directory=directory, schema=int(directory.name.split(".")[0]))
    if state.schema != SCHEMA_VERSION:
        return state
    try:
        counts, published = read_report(directory)
        state = dataclasses.replace(state, counts=counts, published=published)
        return dataclasses.replace(state, without_index=_check_records(directory, counts))
    except UserError as error:
        return dataclasses.replace(state, **{"denied" if denial(error) else "damage": str(error)})


def _check_records(directory: Path, counts: Mapping[str, SplitCounts]) -> tuple[str, ...]:
    """Reads the index and the first and last record of every split.

    Returns:
        The splits without an index.

    Raises:
        UserError: one of them cannot be read, or their numbers do not fit.
    """
    sizes = split_sizes(directory)
    reported = {split: size.pictures for split, size in counts.items() if size.pictures}
    if reported != sizes:
        raise UserError(f"the report in {str(directory)!r} counts {reported}, the description {sizes}")
    without_index = []
    for split, size in sizes.items():
        index = read_index(directory, split)
        if index is None:
            without_index.append(split)
        elif len(index.coco_id) != size:
            found = f"an index of {len(index.coco_id)} records"
            raise UserError(f"{split} of {str(directory)!r} has {size} records and {found}")
        source = TripletSource(directory, split, size)
        for number in {0, size - 1}:
            source[number]
    return tuple(without_index)


def claimed_folders(builder_class: type, folders: Iterable[Path]) -> dict[str, Path]:
    """Returns for each configuration the first folder that holds its raw files, if possible one with the pictures."""
    found: dict[str, Path] = {}
    by_name = {config.name: config for config in builder_class.BUILDER_CONFIGS}
    for folder in folders:
        try:
            configs = builder_class.found_configs(folder)
        except (UserError, OSError):
            continue
        for name in configs:
            if name not in found or (
                _pictures_wanted(by_name[name], found[name]) and not _pictures_wanted(by_name[name], folder)
            ):
                found[name] = folder
    return found


def _pictures_wanted(config: Any, raw: Path) -> tuple[str, ...]:
    """Returns where a configuration's pictures may lie in its raw folder, nothing if there are any."""
    places = config.picture_places
    try:
        there = any(path.is_file() or any(path.iterdir()) for place in places for path in raw.glob(place))
    except OSError:
        there = False
    return () if there else places
