"""Seconds and peak memory of the host for segmenting one picture: Swin-B, 480 px, float32, 1 and 16 phrases.

    python benchmarks/inference.py [--peer CHECKOUT]

With `--peer`, a checkout of the released PyTorch code gets the same random weights through our exporter,
and both sides run in turn, each in a process of its own; the peer's needs `torch`, `loguru`, `fvcore` and `pyyaml`.
A phrase costs the released code a whole forward pass; here the picture is encoded once.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PHRASES = (
    "the dog",
    "all sky",
    "the man in the red shirt on the left",
    "the most salient object",
    "all grass",
    "the small cup",
    "the second car from the right",
    "all window",
    "the leg of the table",
    "a woman holding an umbrella",
    "all road",
    "the tallest tree",
    "the plate with the sandwich",
    "all person",
    "the white boat",
    "the bird",
)
GROUPS = ("image encoder", "text encoder", "pre-fusion", "vision path", "language path")


def random_variables(architecture):
    """Returns weights that keep activations near one, so that no value is special."""
    import jax
    import jax.numpy as jnp

    from unilseg_jax.models.unilseg import UniLSeg

    tokens = jnp.ones((1, 1, architecture.word_len), jnp.int32)
    shapes = jax.eval_shape(UniLSeg(architecture).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), tokens)
    rng = np.random.default_rng(0)

    def value(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if path[-1].key == "kernel" else 25.0
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(value, dict(shapes))


def write_weights(folder: Path, architecture) -> None:
    """Writes random weights as both sides read them."""
    from unilseg_jax.interop.pretrained import Pretrained
    from unilseg_jax.interop.torch_export import export_released, write_released

    tensors, _ = export_released(Pretrained(architecture=architecture, variables=random_variables(architecture)))
    write_released(folder / "weights.safetensors", tensors)


def prepare(folder: Path, size: int) -> None:
    """Writes the weights for both sides, and the input."""
    from unilseg_jax.models.architecture import Architecture
    from unilseg_jax.text.tokenizer import tokenize

    architecture = Architecture()
    write_weights(folder, architecture)
    image = np.random.default_rng(1).standard_normal((1, size, size, 3)).astype(np.float32)
    np.savez(folder / "input.npz", image=image, tokens=tokenize(PHRASES, architecture.word_len))


def ours(folder: Path):
    """Returns (segment a number of phrases, seconds of each group for one phrase)."""
    import jax

    from unilseg_jax import Segmenter

    segmenter = Segmenter.from_pretrained(folder / "weights.safetensors")
    data = np.load(folder / "input.npz")
    image, tokens = data["image"], data["tokens"]

    def segment(count: int) -> np.ndarray:
        return np.asarray(segmenter.logits(image, tokens[None, :count]))[0]

    model, variables = segmenter._model, segmenter._variables

    def groups() -> dict[str, float]:
        def timed(method, *arguments):
            run = jax.jit(lambda variables, *rest: model.apply(variables, *rest, method=method))
            result = jax.block_until_ready(run(variables, *arguments))
            times = []
            for _ in range(3):
                start = time.perf_counter()
                jax.block_until_ready(run(variables, *arguments))
                times.append(time.perf_counter() - start)
            return result, statistics.median(times)

        one = tokens[None, :1]
        is_word = one != 0
        seconds = {}
        maps, seconds["image encoder"] = timed("encode_image", image)
        (words, sentence), seconds["text encoder"] = timed("encode_text", one)
        fused, seconds["pre-fusion"] = timed(
            lambda m, maps, words: m.prefusion([x[:, None] for x in maps], words, is_word), maps, words
        )
        _, seconds["vision path"] = timed(lambda m, fused, words: m.vision_path(fused, words, is_word)[0], fused, words)
        _, seconds["language path"] = timed(lambda m, x, sentence: m.language_path(x, sentence), fused[3], sentence)
        return seconds

    return segment, groups


def released_model(folder: Path, checkout: Path):
    """Returns the model of the released PyTorch code, with the weights that `prepare` wrote."""
    import torch
    import yaml
    from safetensors.torch import load_file

    sys.path.insert(0, str(checkout))
    from model import build_segmenter

    tensors = load_file(folder / "weights.safetensors")
    settings = yaml.safe_load((checkout / "config" / "general_inference.yaml").read_text())["Model"]
    config = types.SimpleNamespace(**settings)
    # Its constructor reads the encoders from files; they are made from the same weights.
    config.clip_pretrain = str(folder / "clip.pt")
    tower = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    torch.jit.save(torch.jit.script(_module_of(torch, tower)), config.clip_pretrain)
    config.swin_pretrain = str(folder / "swin_base.pth")
    prefix = "backbone_visual."
    swin = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    torch.save({"model": swin}, config.swin_pretrain)
    model, _ = build_segmenter(config)
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def released(folder: Path, checkout: Path, device: str):
    """Returns the same two functions for the released PyTorch code, on a `device` of PyTorch's."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32 products are not rounded, like ours
    model = released_model(folder, checkout).to(device)
    data = np.load(folder / "input.npz")
    image = torch.from_numpy(data["image"].transpose(0, 3, 1, 2).copy()).to(device)
    tokens = torch.from_numpy(data["tokens"].astype(np.int64)).to(device)

    def segment(count: int) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([model(image, tokens[i : i + 1])[:, 0] for i in range(count)]).cpu().numpy()

    def groups() -> dict[str, float]:
        seconds = dict.fromkeys(GROUPS, 0.0)
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None

        def timing(function, group):
            def run(*arguments, **options):
                wait()
                start = time.perf_counter()
                result = function(*arguments, **options)
                wait()
                seconds[group] += time.perf_counter() - start
                return result

            return run

        model.backbone_visual.forward = timing(model.backbone_visual.forward, "image encoder")
        model.backbone.encode_text = timing(model.backbone.encode_text, "text encoder")
        fusions = [model.fusion, model.fusion_proj, *model.all_fusion_module, *model.all_fusion_proj]
        for module in fusions:
            module.forward = timing(module.forward, "pre-fusion")
        model.pixel_decoder.forward = timing(model.pixel_decoder.forward, "vision path")
        model.query_decoder.forward = timing(model.query_decoder.forward, "language path")
        for _ in range(3):
            segment(1)
        return {group: total / 3 for group, total in seconds.items()}

    return segment, groups


def _module_of(torch, tensors: dict):
    """Returns a scriptable module whose state is `tensors`."""

    class Node(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Node()
    for name, value in tensors.items():
        node = root
        *parents, leaf = name.split(".")
        for parent in parents:
            if parent not in node._modules:
                node.add_module(parent, Node())
            node = node._modules[parent]
        node.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
    return root


def worker(folder: Path, checkout: Path | None, device: str) -> None:
    """Serves one side: a count of phrases or `groups` per line in, JSON out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    segment, groups = released(folder, checkout, device) if checkout else ours(folder)
    for line in sys.stdin:
        if line.strip() == "groups":
            answer = groups()
        else:
            start = time.perf_counter()
            logits = segment(int(line))
            answer = {"seconds": time.perf_counter() - start, "logits": float(np.abs(logits).max())}
            np.save(folder / f"logits_{'peer' if checkout else 'ours'}.npy", logits)
        answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(answer), file=answers, flush=True)


class Side:
    """A worker process.

    Args:
        folder: with the weights and the input.
        checkout: of the released code; None is our side.
        script: the benchmark, which serves a side when asked with `--worker`.
        options: further ones of the script.
    """

    def __init__(self, folder: Path, checkout: Path | None, script: str = __file__, options: Sequence[str] = ()):
        command = [sys.executable, script, "--worker", str(folder), *options]
        if checkout:
            command += ["--peer", str(checkout)]
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # another side may share the chip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, what: int | str) -> dict:
        """Asks and waits."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side ended early; its message stands above")
        return json.loads(line)

    def stop(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def chip() -> tuple[str, str]:
    """Returns what JAX computes on, and PyTorch's name of such a device.

    Asked in a process of its own: this one must not take a device from the sides.
    """
    command = [sys.executable, "-c", "import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep='|')"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    backend, kind = answer.split("|")
    return (f"{os.cpu_count()} cores", "cpu") if backend == "cpu" else (kind, {"gpu": "cuda"}.get(backend, "cpu"))


def check_peer(parser: argparse.ArgumentParser, checkout: Path | None) -> None:
    """Ends the program unless `--peer` is left out or a checkout of the released code."""
    if checkout and not (checkout / "model").is_dir():
        parser.error(f"{str(checkout)!r} is no checkout of the released code: it has no folder model/")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="checkout of the released PyTorch code")
    parser.add_argument("--size", type=int, default=480, help="side of the picture in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="timed turns per side, after one warm-up")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.peer, arguments.device)
        return
    check_peer(parser, arguments.peer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments.size)
        kind, device = chip()
        sides = {"ours": Side(folder, None)}
        if arguments.peer:
            sides["peer"] = Side(folder, arguments.peer.resolve(), options=["--device", device])
        print(f"Swin-B, {arguments.size} px, float32, {kind}, {arguments.rounds} turns, medians")
        whole = {}
        for count in (1, len(PHRASES)):
            for side in sides.values():
                side.ask(count)
            turns = [{label: side.ask(count) for label, side in sides.items()} for _ in range(arguments.rounds)]
            for label in sides:
                seconds = [turn[label]["seconds"] for turn in turns]
                whole.setdefault(label, statistics.median(seconds))
                print(
                    f"  {count:2d} phrase(s)  {label}  {statistics.median(seconds):7.2f} s "
                    f"({min(seconds):.2f} to {max(seconds):.2f})  peak host memory {turns[-1][label]['peak']:.2f} GiB"
                )
            if arguments.peer:
                ratios = [turn["ours"]["seconds"] / turn["peer"]["seconds"] for turn in turns]
                difference = np.abs(np.load(folder / "logits_ours.npy") - np.load(folder / "logits_peer.npy")).max()
                print(
                    f"  {count:2d} phrase(s)  ours / peer  {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f}); logits differ by at most {difference:.1e} "
                    f"of {turns[-1]['peer']['logits']:.1f}"
                )
        parts = {label: side.ask("groups") for label, side in sides.items()}
        print("where one phrase's time goes, s: " + "  ".join(f"{label:>8}" for label in parts))
        for group in GROUPS:
            print(f"  {group:30s} " + "  ".join(f"{parts[label][group]:8.3f}" for label in parts))
        rest = {label: whole[label] - sum(parts[label][group] for group in GROUPS) for label in parts}
        print(f"  {'rest (mask, glue, noise)':30s} " + "  ".join(f"{rest[label]:8.3f}" for label in parts))
        for side in sides.values():
            side.stop()


if __name__ == "__main__":
    main()
