"""Triplets per second and host memory of the input pipeline, beside a PyTorch DataLoader doing the same work.

    python benchmarks/input_pipeline.py [--minutes M] [--seconds S] [--rounds R]

The pictures are drawn: 640 x 480 JPEGs with three objects of two phrases each, as REFER's files, converted once for us.
A triplet is a picture, the mask of one object and one of its phrases, at 480 px. Every side is a process of its
own; the sides take turns. All sides make the same pixels, which is checked before anything is timed.

The DataLoader comes in three forms: with OpenCV, with Pillow (what torchvision reads with), and with OpenCV and float
pictures normalised in the worker, as the released code has it; ours normalises on the device. It has as many worker
processes as cores, ours as many threads. On one core it is also shown without a worker, where nothing is read ahead; on
several, ours also with worker processes. It holds run lengths and phrases in memory and reads JPEG files; ours reads
records. Nothing of ours makes its pixels: it calls OpenCV and pycocotools as the released code and its relatives do.

`--minutes` shows our memory over time instead.

Needs `pip install -e ".[torch]" psutil`.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import grain
import numpy as np

HEIGHT, WIDTH, SIZE, BATCH, WORD_LEN = 480, 640, 480, 16, 22
PICTURES, OBJECTS = 800, 3
ALONE = "DataLoader, OpenCV, no worker"
PEERS = {
    "DataLoader, OpenCV": "opencv",
    "DataLoader, Pillow": "pillow",
    "DataLoader, OpenCV, float": "float",
    ALONE: "opencv",
}
PROCESSES = "ours, worker processes"
OURS = {"ours": 1, PROCESSES: 1, "ours, 3 objects per visit": 3}


def draw(folder: Path) -> None:
    """Writes REFER's files with drawn pictures, our records of them, and what the DataLoader holds in memory."""
    from unilseg_jax import prepare
    from unilseg_jax.input_pipeline import stand_ins
    from unilseg_jax.ops import masks

    rng = np.random.default_rng(0)
    pictures = folder / "images/mscoco/images/train2014"
    pictures.mkdir(parents=True)
    (folder / "refcoco").mkdir()
    refs, images, annotations, samples = [], [], [], []
    for number in range(1, PICTURES + 1):
        image, objects = stand_ins.draw(rng, HEIGHT, WIDTH, OBJECTS)
        # As much detail as a photograph: about 80 kB per JPEG.
        noise = cv2.GaussianBlur(rng.integers(0, 256, image.shape, dtype=np.uint8), (0, 0), 1.5)
        name = f"COCO_train2014_{number:012d}.jpg"
        (pictures / name).write_bytes(stand_ins.jpeg(cv2.addWeighted(image, 0.6, noise, 0.4, 0)))
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for place, mask in enumerate(objects):
            key, polygon = OBJECTS * number + place, stand_ins.polygon(mask)
            texts = [f"the thing number {place} from the left", f"thing {place} beside the other ones"]
            sentences = [{"sent_id": 2 * key + i, "sent": text} for i, text in enumerate(texts)]
            refs.append({"ref_id": key, "ann_id": key, "image_id": number, "split": "train", "sentences": sentences})
            annotations.append({"id": key, "image_id": number, "category_id": 1, "segmentation": [polygon]})
            counts = masks.mask_to_rle(masks.polygons_to_mask([polygon], HEIGHT, WIDTH))
            samples.append((str(pictures / name), counts, texts))
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "refcoco/instances.json").write_text(json.dumps(instances))
    (folder / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "samples.pickle").write_bytes(pickle.dumps(samples))
    with contextlib.redirect_stdout(io.StringIO()):
        prepare.main(["refcoco", "--config", "refcoco", "--raw", str(folder), "--out", str(folder / "prepared")])


# ---- The sides -----------------------------------------------------------------------------------------


def our_batches(folder: Path, *, prompts: int, resize: str, parallel: int, start: int = 0, processes: bool = False):
    """Yields our batches, made by `parallel` threads or, if wanted, by as many processes of a thread each."""
    from unilseg_jax.input_pipeline.loader import training_batches
    from unilseg_jax.input_pipeline.mixture import Mixture, Part
    from unilseg_jax.input_pipeline.sources import open_source
    from unilseg_jax.input_pipeline.transforms import make_stages

    source = open_source("refcoco/refcoco", data_dir=folder / "prepared", split="train")
    mixture = Mixture([Part(name="train", source=source)], prompts=prompts, seed=0)
    stages = make_stages(size=SIZE, prompts=prompts, word_len=WORD_LEN, resize=resize)
    workers, threads = (parallel, 1) if processes else (0, parallel)
    return training_batches(mixture.visits(), stages, batch_size=BATCH, start=start, threads=threads, workers=workers)


class TorchSamples:
    """The same work as a map-style dataset."""

    def __init__(self, folder: Path, resize: str, form: str):
        self.samples = pickle.loads((folder / "samples.pickle").read_bytes())
        self.resize, self.form = resize, form
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        import torch
        from instant_clip_tokenizer import Tokenizer
        from PIL import Image
        from pycocotools import mask as coco_mask

        from unilseg_jax.ops.geometry import PIXEL_MEAN, PIXEL_STD
        from unilseg_jax.text.tokenizer import END, START, clean

        file, counts, texts = self.samples[index]
        if self.form == "pillow":
            image = np.asarray(Image.open(file).convert("RGB"))
        else:
            image = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB)
        mask = coco_mask.decode({"counts": counts, "size": [HEIGHT, WIDTH]})
        if self.resize == "letterbox":
            scale = min(SIZE / HEIGHT, SIZE / WIDTH)
            margins = (SIZE - WIDTH * scale) / 2, (SIZE - HEIGHT * scale) / 2
            matrix = np.array([[scale, 0, margins[0]], [0, scale, margins[1]]])
            border = [255 * mean for mean in PIXEL_MEAN]
            image = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderValue=border)
            mask = cv2.warpAffine(mask, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST, borderValue=0)
        else:
            image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
            mask = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST_EXACT)
        if not hasattr(self, "tokenizer"):
            self.tokenizer = Tokenizer()
        ids = self.tokenizer.encode(clean(texts[self.rng.integers(len(texts))]))[: WORD_LEN - 2]
        tokens = np.zeros(WORD_LEN, np.int32)
        tokens[: len(ids) + 2] = START, *ids, END
        image = torch.from_numpy(image)
        if self.form == "float":
            image = image.permute(2, 0, 1).float().div_(255)
            image.sub_(torch.tensor(PIXEL_MEAN)[:, None, None]).div_(torch.tensor(PIXEL_STD)[:, None, None])
        return {"image": image, "mask": torch.from_numpy(mask), "tokens": torch.from_numpy(tokens)}


def torch_batches(folder: Path, *, form: str, resize: str, workers: int):
    """Yields the DataLoader's batches, made by worker processes, or by this one if there are none."""
    from torch.utils.data import DataLoader

    options = {"shuffle": True, "drop_last": True, "num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(TorchSamples(folder, resize, form), BATCH, **options)
    while True:
        yield from loader


def check_equal(folder: Path) -> None:
    """Makes sure that all sides make the same pixels."""
    from unilseg_jax.input_pipeline.sources import open_source
    from unilseg_jax.input_pipeline.transforms import make_stages
    from unilseg_jax.input_pipeline.visits import Visit

    source = open_source("refcoco/refcoco", data_dir=folder / "prepared", split="train")
    for number, resize, form in itertools.product(range(OBJECTS * 8), ("letterbox", "stretch"), ("opencv", "pillow")):
        theirs = TorchSamples(folder, resize, form)[number]
        element = Visit(picture=source.record(number // OBJECTS), samples=(number % OBJECTS,))
        for stage in make_stages(size=SIZE, prompts=1, word_len=WORD_LEN, resize=resize):
            random = isinstance(stage, grain.transforms.RandomMap)
            element = stage.random_map(element, np.random.default_rng(0)) if random else stage.map(element)
        assert (element["image"] == theirs["image"].numpy()).all(), f"{form} makes other pictures"
        assert (element["mask"][0] == theirs["mask"].numpy()).all(), f"{form} makes other masks"


def worker(folder: Path, side: str) -> None:
    """Serves one side in one table: a job per line in, its measurement out, as JSON."""
    import psutil

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    cv2.setNumThreads(1)  # the pictures are made in parallel, not their rows
    batches = None
    for line in sys.stdin:
        job = json.loads(line)
        if batches is None:
            if job["parallel"] == 1:
                os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
            if side in OURS:
                options = {"prompts": OURS[side], "resize": job["resize"], "parallel": job["parallel"]}
                batches = our_batches(folder, **options, processes=side == PROCESSES)
            else:
                workers = 0 if side == ALONE else job["parallel"]
                batches = torch_batches(folder, form=PEERS[side], resize=job["resize"], workers=workers)
        for _ in range(3):  # what is already in the queue
            next(batches)
        triplets, began, cpu = 0, time.perf_counter(), _cpu_seconds(psutil.Process())
        while time.perf_counter() - began < job["seconds"]:
            triplets += BATCH * OURS.get(side, 1)
            next(batches)
        seconds, cpu = time.perf_counter() - began, _cpu_seconds(psutil.Process()) - cpu
        answer = {"rate": triplets / seconds, "cpu": 1e3 * cpu / triplets, "memory": _memory(psutil.Process())}
        print(json.dumps(answer), file=answers, flush=True)


def _cpu_seconds(process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _memory(process) -> float:
    """Returns MiB in memory: all of the process, and of its workers what they have for themselves."""
    own = process.memory_info().rss
    return (own + sum(each.memory_full_info().uss for each in process.children(recursive=True))) / 2**20


class Side:
    """A worker process."""

    def __init__(self, folder: Path, name: str):
        command = [sys.executable, __file__, "--worker", str(folder), name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **job) -> dict:
        """Asks and waits."""
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side ended early; its message stands above")
        time.sleep(0.5)  # until it has filled its queue, which would take time from the next side
        return json.loads(line)

    def stop(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


# ---- The tables ----------------------------------------------------------------------------------------


def compare(folder: Path, seconds: float, rounds: int) -> None:
    """Prints a table per way of resizing and number of cores."""
    cores = len(os.sched_getaffinity(0))
    for resize, parallel in itertools.product(("letterbox", "stretch"), dict.fromkeys((1, cores))):
        left_out = PROCESSES if parallel == 1 else ALONE
        sides = {name: Side(folder, name) for name in (*OURS, *PEERS) if name != left_out}
        job = {"resize": resize, "parallel": parallel}
        for side in sides.values():
            side.ask(**job, seconds=0.1)
        turns = [{name: side.ask(**job, seconds=seconds) for name, side in sides.items()} for _ in range(rounds)]
        print(f"\n{resize}, {parallel} core(s), {rounds} turns of {seconds} s, medians (least to most)")
        print("| | triplets/s | ours is faster by | CPU ms per triplet | memory, MiB |\n|---|---|---|---|---|")
        for name in sides:
            rates = [turn[name]["rate"] for turn in turns]
            ratios = [turn["ours"]["rate"] / turn[name]["rate"] for turn in turns]
            faster = "" if name in OURS else f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cpu = statistics.median(turn[name]["cpu"] for turn in turns)
            memory = turns[-1][name]["memory"]
            spread = f"({min(rates):.0f} to {max(rates):.0f})"
            print(f"| {name} | {statistics.median(rates):.0f} {spread} | {faster} | {cpu:.2f} | {memory:.0f} |")
        for side in sides.values():
            side.stop()


def seek(folder: Path) -> None:
    """Prints how long the first batch takes, at the start and far away."""
    for step in (0, 10**9):
        began = time.perf_counter()
        next(our_batches(folder, prompts=1, resize="letterbox", parallel=1, start=step))
        print(f"from nothing to the batch of step {step}: {time.perf_counter() - began:.2f} s")


def watch_memory(folder: Path, minutes: float) -> None:
    """Prints our memory over time."""
    import psutil

    batches = our_batches(folder, prompts=1, resize="letterbox", parallel=len(os.sched_getaffinity(0)))
    began, marks, count = time.perf_counter(), 10, 0
    for mark in range(marks + 1):
        while time.perf_counter() - began < 60 * minutes * mark / marks or count < 10:
            next(batches)
            count += 1
        passed = (time.perf_counter() - began) / 60
        print(f"{passed:5.1f} min  {count * BATCH:8,d} triplets  {_memory(psutil.Process()):7.1f} MiB", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.0, help="watch our memory for that long instead")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns per side")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(Path(arguments.worker[0]), arguments.worker[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder)
        if arguments.minutes:
            watch_memory(folder, arguments.minutes)
            return
        check_equal(folder)
        seek(folder)
        compare(folder, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
