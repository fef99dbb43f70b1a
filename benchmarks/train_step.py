"""Pictures and phrases per second, utilisation and peak memory of a training step on one device.

    python benchmarks/train_step.py [--size base] [--input-size 480] [--batch-sizes 8 16 32] [--prompts 1 4]
        [--dtypes float32 bfloat16] [--remats none blocks full] [--steps 20]

Every row is a process of its own, so that a row's peak of memory is its own and one that does not fit ends alone. The
batch lies on the device already: `input_pipeline.py` measures the data. Compiling is timed apart; then some steps
are thrown away, and the median of five turns counts.

Utilisation is the model's FLOPs (forward and backward by XLA's count, without what remat computes again) by the time
and by the chip's peak for the row's type. On a CPU: --size least --input-size 64 --batch-sizes 2 --steps 5
"""

import argparse
import datetime
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time

TURNS, WARM = 5, 3
LEAST = "least"


def config_of(job: dict):
    """Returns the config of a row."""
    from unilseg_jax.config import base_config, shrink, use_swin

    config = base_config()
    if job["size"] == LEAST:
        shrink(config)
    else:
        use_swin(config, job["size"])
    config.input.update(size=job["input_size"], batch_size=job["batch_size"], prompts=job["prompts"])
    config.update(dtype=job["dtype"], remat=job["remat"])
    return config


def random_state(shapes):
    """Returns a state of small random parameters; compiling the real initialisation would take longer than the row."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)

    def parameter(leaf):
        return (0.02 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    statistics_ = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes.batch_stats)
    return jax.device_put(state.replace(params=jax.tree.map(parameter, shapes.params), batch_stats=statistics_))


def random_batch(config, shapes: dict):
    """Returns pictures of noise, phrases of 5 words and masks of half the square."""
    import jax
    import numpy as np

    rng = np.random.default_rng(1)
    batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    batch["image"][:] = rng.integers(0, 256, batch["image"].shape)
    batch["tokens"][..., :7] = rng.integers(1, config.model.vocab_size, (*batch["tokens"].shape[:-1], 7))
    batch["mask"][..., : config.input.size // 2, :] = 1
    batch["valid"][:] = True
    return jax.device_put(batch)


def measure(job: dict) -> dict:
    """Returns the numbers of a row."""
    import jax

    from unilseg_jax.training import planning

    config = config_of(job)
    shapes = planning.batch_of(config, config.input.batch_size)
    program = planning.program(config, planning.one_device())
    began = time.perf_counter()
    compiled = program.step.lower(program.state, shapes).compile()
    compiling = time.perf_counter() - began
    state, batch = random_state(program.state), random_batch(config, shapes)
    seconds = []
    for turn in range(TURNS + 1):
        count = WARM if turn == 0 else max(job["steps"] // TURNS, 1)
        began = time.perf_counter()
        for _ in range(count):
            state, terms = compiled(state, batch)
        loss = float(jax.device_get(terms["loss"]))
        seconds.append((time.perf_counter() - began) / count)
    assert math.isfinite(loss), f"the loss is {loss}"
    seconds = statistics.median(seconds[1:])
    plain = planning.program(config, planning.one_device(), remat="none")
    flops = plain.step.lower(plain.state, planning.batch_of(config, 1)).cost_analysis()["flops"]
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if memory is None:
        analysis = compiled.memory_analysis()
        memory = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    return {"seconds": seconds, "compiling": compiling, "flops": flops, "memory": memory}


def ask(job: dict) -> dict:
    """Returns the numbers of a row, measured in a process of its own; `failed` says why there are none."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, __file__, "--row", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if "RESOURCE_EXHAUSTED" in done.stderr or done.returncode == -9:
        return {"failed": "does not fit"}
    print(done.stderr, file=sys.stderr)
    return {"failed": f"ended with code {done.returncode}"}


def device_kind() -> str:
    """Returns the kind of the first device, asked in a process of its own.

    This process must not open it: a TPU is given to one process alone, and memory of a GPU would be taken from the
    rows.
    """
    command = [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]


def print_table(arguments: argparse.Namespace) -> None:
    """Measures and prints row after row."""
    import jax
    import jaxlib

    from unilseg_jax.training.chips import chip_of

    kind = device_kind()
    chip = chip_of(kind)
    print(
        f"{kind}, jax {jax.__version__}, jaxlib {jaxlib.__version__}, {datetime.date.today()}; Swin {arguments.size}, "
        f"{arguments.input_size} px\n\n"
        "| type | remat | prompts | batch | ms per step | pictures/s | phrases/s | TFLOP/s | of peak | peak GiB | "
        "compiled in s |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    axes = (arguments.dtypes, arguments.remats, arguments.prompts, arguments.batch_sizes)
    for dtype, remat, prompts, batch_size in itertools.product(*axes):
        job = {"dtype": dtype, "remat": remat, "prompts": prompts, "batch_size": batch_size}
        row = ask(job | {"size": arguments.size, "input_size": arguments.input_size, "steps": arguments.steps})
        head = f"| {dtype} | {remat} | {prompts} | {batch_size} |"
        if "failed" in row:
            print(f"{head} {row['failed']} | | | | | | |", flush=True)
            continue
        speed = batch_size / row["seconds"]
        flops = speed * row["flops"]
        share = f"{flops / chip.peak(dtype):.1%}" if chip else "?"
        print(
            f"{head} {1e3 * row['seconds']:.1f} | {speed:.2f} | {speed * prompts:.2f} | {flops / 1e12:.3g} | {share} | "
            f"{row['memory'] / 2**30:.2f} | {row['compiling']:.0f} |",
            flush=True,
        )


def main() -> None:
    """Prints the table, or measures a row of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", help=f"of the Swin, or {LEAST}: the least model there is")
    parser.add_argument("--input-size", type=int, default=480)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--remats", nargs="+", default=["none", "blocks", "full"])
    parser.add_argument("--steps", type=int, default=20, help="that are timed, in five turns")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.row)))
    else:
        print_table(arguments)


if __name__ == "__main__":
    main()
