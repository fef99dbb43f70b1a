"""The benchmarks by the names that `evaluate` takes, and where their pictures and truths come from.

Paper: Tables 2 to 7. Differs: gRefCOCO and Ref-DAVIS17 are in none of the paper's tables.
"""

import dataclasses
import difflib

from unilseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a model is asked, and how the answer is counted.

    Attributes:
        name: as users type it.
        dataset: of a prepared set, as `sources.open_source` takes it.
        splits: of the benchmark, in the order of the paper's table.
        task: a key of `judges.JUDGES`.
        vocabulary: table of class names (`text.prompts.class_names`); "" where phrases are the data set's own.
        table: number of the paper's table, 0 for none.
        remark: what a reader of its numbers must know.
        scored: whether its truths are published.
        pictures: how many pictures a whole split may have, where authors and users count otherwise; none takes what
            the data set's authors publish.
    """

    name: str
    dataset: str
    splits: tuple[str, ...]
    task: str
    vocabulary: str = ""
    table: int = 0
    remark: str = ""
    scored: bool = True
    pictures: tuple[int, ...] = ()


_UNC = ("val", "testA", "testB")
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(name="refcoco", dataset="refcoco/refcoco", splits=_UNC, task="referring", table=2),
        Benchmark(name="refcoco+", dataset="refcoco/refcoco+", splits=_UNC, task="referring", table=2),
        Benchmark(
            name="refcocog",
            dataset="refcoco/refcocog",
            splits=("val", "test"),
            task="referring",
            table=2,
            remark="split by UMD, as the paper's G-Ref",
        ),
        Benchmark(name="grefcoco", dataset="grefcoco/grefcoco", splits=_UNC, task="generalized"),
        Benchmark(
            name="ref_youtube_vos",
            dataset="ref_youtube_vos/valid_with_masks",
            splits=("valid",),
            task="video",
            table=3,
            remark="scored here with the ground truth that its authors published after their server had closed",
        ),
        Benchmark(
            name="ref_youtube_vos_submission",
            dataset="ref_youtube_vos/valid",
            splits=("valid",),
            task="video",
            table=3,
            remark="without ground truth: writes submissions, scores nothing",
            scored=False,
        ),
        Benchmark(name="ref_davis17", dataset="ref_davis17/ref_davis17", splits=("val",), task="video_objects"),
        Benchmark(
            name="ade20k",
            dataset="ade20k/ade20k",
            splits=("val",),
            task="semantic",
            vocabulary="ade20k",
            table=5,
            remark="open vocabulary (Table 4) if the model was not trained on ADE20K, else in vocabulary (Table 5)",
        ),
        Benchmark(
            name="pascal_context59",
            dataset="pascal_context/png",
            splits=("val",),
            task="semantic",
            vocabulary="pascal_context59",
            table=4,
            remark="the converted label maps of val are 5104, its list has 5105 pictures",
            pictures=(5104, 5105),
        ),
        Benchmark(
            name="ecssd",
            dataset="salient/ecssd",
            splits=("test",),
            task="salient",
            table=6,
            remark="ECSSD is also among the paper's training data",
        ),
        Benchmark(name="sod", dataset="salient/sod", splits=("test",), task="salient", table=6),
        Benchmark(
            name="pascal_s",
            dataset="salient/pascal_s",
            splits=("test",),
            task="salient",
            table=6,
            remark="a pixel is salient from grey level 128 on; PySODMetrics takes levels above 128",
        ),
        Benchmark(
            name="partimagenet",
            dataset="part_imagenet/seg",
            splits=("val", "test"),
            task="parts",
            vocabulary="part_imagenet",
            table=7,
            remark="whether the paper averages 40 parts or 41 classes with the background is not known",
        ),
        # None of the paper's.
        Benchmark(name="refcocos", dataset="refcocos/refcocos", splits=("test",), task="referring"),
        Benchmark(
            name="davis",
            dataset="davis/davis",
            splits=("val",),
            task="salient",
            remark="DAVIS 2016: each frame asked for the most salient object",
        ),
        Benchmark(name="pairs", dataset="salient/pairs", splits=("train",), task="salient", remark="your own pictures"),
    )
}
ALL = "all"


def find(request: str) -> list[tuple[Benchmark, str]]:
    """Returns the benchmarks and splits that a user means.

    Args:
        request: `NAME`, which means all its splits, or `NAME:SPLIT`, or `all`. A split that is no benchmark's, such as
            `train`, may be asked for by name.

    Raises:
        UserError: there is no such benchmark.
    """
    if request == ALL:
        return [(benchmark, split) for benchmark in BENCHMARKS.values() for split in benchmark.splits]
    name, colon, split = request.partition(":")
    if name not in BENCHMARKS or (colon and not split):
        close = difflib.get_close_matches(name, BENCHMARKS, n=1) if name not in BENCHMARKS else []
        raise UserError(
            f"no benchmark {request!r}; wanted is NAME or NAME:SPLIT, NAME one of {', '.join(BENCHMARKS)}; or {ALL}, "
            "or run" + (f"; is {close[0]} meant?" if close else "")
        )
    benchmark = BENCHMARKS[name]
    return [(benchmark, one) for one in ((split,) if split else benchmark.splits)]
