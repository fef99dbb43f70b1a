"""Seconds for all classes of a data set on one picture: Swin-B, 480 px, float32, ADE20K's 150 classes.

    python benchmarks/evaluate.py [--peer CHECKOUT] [--phrases N] [--rounds N] [--buckets N ...]

Two results each: the label map (the best class of every pixel) and the masks, one per phrase, at the picture's size.
With `--peer`, a checkout of the released PyTorch code gets the same random weights and is looped over the phrases, as
its demo does one: the picture goes through the image encoder with every phrase. Both sides run in turn, each in
a process of its own; the peer's needs `torch`, `loguru`, `fvcore` and `pyyaml`. Ours encodes every phrase anew in
each turn, although it would keep them from one picture to the next.

On a shared machine, seconds of the processor say more than those of the clock, if threads do not wait for one another:
`taskset --cpu-list 0 python benchmarks/evaluate.py ...` gives both sides one core.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from inference import Side, check_peer, released_model, write_weights

RESULTS = ("label map", "masks")
THRESHOLD = 0.5


def now() -> np.ndarray:
    """Returns the seconds of the clock, and those that all threads together had of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def class_phrases(count: int) -> list[str]:
    """Returns "all CLASS" for the first classes of ADE20K, in the order of its labels."""
    from unilseg_jax.text.prompts import all_of, class_names

    return [all_of(row.phrase) for row in class_names("ade20k")][:count]


def prepare(folder: Path, architecture, size: int, phrases: int) -> None:
    """Writes the weights for both sides, and the picture with its phrases."""
    from unilseg_jax.ops.geometry import normalise
    from unilseg_jax.text.tokenizer import tokenize

    write_weights(folder, architecture)
    # Colour that changes slowly, and some noise.
    rng = np.random.default_rng(1)
    image = np.kron(rng.integers(0, 200, (-(-size // 40), -(-size // 40), 3)), np.ones((40, 40, 1), int))[:size, :size]
    image = (image + rng.integers(0, 56, image.shape)).astype(np.uint8)
    tokens = tokenize(class_phrases(phrases), architecture.word_len)
    np.savez(folder / "input.npz", image=image, square=normalise(image), tokens=tokens)


def ours(folder: Path, buckets: list[int] | None):
    """Returns a function from a number of phrases to the results and their seconds, of the clock and the processor."""
    from unilseg_jax.evaluation.predictor import Predictor
    from unilseg_jax.interop.torch_import import load_released

    image = np.load(folder / "input.npz")["image"]
    pretrained = load_released(folder / "weights.safetensors")
    predictor = Predictor(pretrained, input_size=image.shape[0], buckets=buckets)

    def run(count: int) -> tuple[dict, dict]:
        phrases, results, seconds = class_phrases(count), {}, {}
        for name in RESULTS:
            predictor.cache.clear()
            start = now()
            encoded = predictor.encode(image, "stretch")
            if name == "label map":
                results[name], _ = predictor.label_map(encoded, phrases)
            else:
                results[name] = predictor.probabilities(encoded, phrases) > THRESHOLD
            seconds[name] = (now() - start).tolist()
        return results, seconds

    return run


def released(folder: Path, checkout: Path):
    """Returns the same function for the released PyTorch code; one loop makes both results, with a clock for each."""
    import torch

    model = released_model(folder, checkout)
    data = np.load(folder / "input.npz")
    image = torch.from_numpy(data["square"][None].transpose(0, 3, 1, 2).copy())
    tokens = torch.from_numpy(data["tokens"].astype(np.int64))

    def run(count: int) -> tuple[dict, dict]:
        size = image.shape[2:]
        best, labels, masks = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.int32), []
        clock = np.zeros((3, 2))
        with torch.inference_mode():
            for index in range(count):
                times = [now()]
                logits = model(image, tokens[index : index + 1])
                times.append(now())
                fine = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)[0, 0]
                labels[fine > best] = index
                best = torch.maximum(best, fine)
                times.append(now())
                fine = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)[0, 0]
                masks.append((torch.sigmoid(fine) > THRESHOLD).numpy())
                times.append(now())
                clock += np.diff(times, axis=0)
        results = {"label map": labels.numpy(), "masks": np.stack(masks)}
        return results, {"label map": (clock[0] + clock[1]).tolist(), "masks": (clock[0] + clock[2]).tolist()}

    return run


def worker(folder: Path, checkout: Path | None, buckets: list[int] | None) -> None:
    """Serves one side: a count of phrases per line in, JSON out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    run = released(folder, checkout) if checkout else ours(folder, buckets)
    for line in sys.stdin:
        results, seconds = run(int(line))
        np.savez(folder / f"results_{'peer' if checkout else 'ours'}.npz", **results)
        answer = {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        print(json.dumps(answer), file=answers, flush=True)


def table(turns: list[dict[str, dict]], phrases: int) -> list[str]:
    """Returns the lines of the table, Markdown.

    Args:
        turns: of each round, the answer of each side by its name; "ours" comes first.
        phrases: how many there were.
    """
    sides = list(turns[0])
    header = ["result", *sides, *(["ours / peer", "throughput"] if "peer" in sides else [])]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name in RESULTS:
        for kind, index in (("clock", 0), ("processor", 1)):
            seconds = {side: [turn[side]["seconds"][name][index] for turn in turns] for side in sides}
            row = [f"{name}, {kind}"]
            for side in sides:
                middle = statistics.median(seconds[side])
                row.append(
                    f"{middle:.1f} s ({min(seconds[side]):.1f} to {max(seconds[side]):.1f}), {middle / phrases:.2f} s "
                    f"a phrase, peak {turns[-1][side]['peak']:.2f} GiB"
                )
            if "peer" in sides:
                ratios = [mine / other for mine, other in zip(seconds["ours"], seconds["peer"], strict=True)]
                row += [
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    f"{1 / statistics.median(ratios):.2f} ×",
                ]
            lines.append(f"| {' | '.join(row)} |")
    return lines


def agreement(folder: Path) -> str:
    """Returns in how many pixels both sides agree."""
    ours, peer = (np.load(folder / f"results_{side}.npz") for side in ("ours", "peer"))
    shares = {name: float((ours[name] == peer[name]).mean()) for name in RESULTS}
    return "pixels alike: " + ", ".join(f"{name} {100 * share:.3f} %" for name, share in shares.items())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="checkout of the released PyTorch code")
    parser.add_argument("--size", type=int, default=480, help="side of the picture in pixels")
    parser.add_argument("--phrases", type=int, default=150, help="how many of ADE20K's classes, 1 to 150")
    parser.add_argument("--rounds", type=int, default=3, help="timed turns per side, after a warm-up")
    parser.add_argument("--buckets", type=int, nargs="+", help="numbers of phrases decoded together, of ours")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.peer, arguments.buckets)
        return
    if not 1 <= arguments.phrases <= 150:
        parser.error(f"--phrases {arguments.phrases}: 1 to 150 are wanted")
    check_peer(parser, arguments.peer)
    from unilseg_jax.evaluation.predictor import default_buckets, split
    from unilseg_jax.models.architecture import Architecture

    buckets = sorted(arguments.buckets or default_buckets())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, Architecture(), arguments.size, arguments.phrases)
        options = ["--buckets", *map(str, buckets)]
        sides = {"ours": Side(folder, None, __file__, options)}
        if arguments.peer:
            sides["peer"] = Side(folder, arguments.peer.resolve(), __file__)
        for label, side in sides.items():
            # A few phrases; ours once in each bucket that will be needed, since each is compiled.
            for count in sorted(set(split(arguments.phrases, buckets))) if label == "ours" else [2]:
                side.ask(min(count, arguments.phrases))
        turns = []
        for _ in range(arguments.rounds):
            turns.append({label: side.ask(arguments.phrases) for label, side in sides.items()})
            print(json.dumps(turns[-1]), file=sys.stderr, flush=True)
        print(
            f"Swin-B, {arguments.size} px, float32, {arguments.phrases} phrases, {os.cpu_count()} cores, "
            f"buckets {buckets}, {arguments.rounds} turns, medians\n"
        )
        print("\n".join(table(turns, arguments.phrases)))
        if arguments.peer:
            print(f"\n{agreement(folder)}")
        for side in sides.values():
            side.stop()


if __name__ == "__main__":
    main()
