"""Pictures and phrases per second, utilisation and peak memory of a training step on one device.

    python benchmarks/train_step.py [--size base] [--input-size 480] [--batch-sizes 8 16 32] [--prompts 1 4]
        [--dtypes float32 bfloat16] [--remats none blocks full] [--steps 20] [--jobs 1]
        [--rows TYPE:REMAT:PROMPTS:BATCH ...] [--profile DIR] [--save DIR [--target FILE] | --load DIR]

Every row is a process of its own, so that a row's peak of memory is its own and one that does not fit ends alone. The
batch lies on the device already: `input_pipeline.py` measures the data. Compiling is timed apart; then some steps
are thrown away, and the median of five turns counts. With `--jobs 4`, four rows are compiled side by side (their times
of compiling are longer then) and measured one after the other; each holds some hundred MiB of the device meanwhile.

Where time on a chip is short, `--save DIR` compiles on another machine and measures nothing, and `--load DIR`, with the
same arguments, versions of JAX and code, measures what lies there. `--target FILE` describes the GPU that is not here,
as XLA does (a `GpuTargetConfigProto` in text, such as benchmarks/h100.txtpb); it needs JAX's CUDA packages, and
JAX_PLATFORMS=cpu where no GPU is. Kernels are then chosen without timing them; the memory is what XLA plans. A row that
is loaded was "compiled" in the time that loading took. On a chip, where timing kernels to choose among them takes
longer than all else, XLA_FLAGS="--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false" leaves it out too.

Utilisation is the model's FLOPs (forward and backward by XLA's count, without what remat computes again) by the time
and by the chip's peak for the row's type. On a CPU: --size least --input-size 64 --batch-sizes 2 --steps 5
"""

import argparse
import contextlib
import datetime
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

TURNS, WARM = 5, 3
LEAST = "least"
AXES = ("dtype", "remat", "prompts", "batch_size")
FIXED = ("size", "input_size", "steps", "profile", "save", "load", "target")
COMPILED = "compiled"


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
    """Returns a state of small random parameters, on the host; compiling `init` would take longer than the row."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)

    def parameter(leaf):
        return (0.02 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    statistics_ = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes.batch_stats)
    return state.replace(params=jax.tree.map(parameter, shapes.params), batch_stats=statistics_)


def random_batch(config, shapes: dict):
    """Returns pictures of noise, phrases of 5 words and masks of half the square, on the host."""
    import numpy as np

    rng = np.random.default_rng(1)
    batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    batch["image"][:] = rng.integers(0, 256, batch["image"].shape)
    batch["tokens"][..., :7] = rng.integers(1, config.model.vocab_size, (*batch["tokens"].shape[:-1], 7))
    batch["mask"][..., : config.input.size // 2, :] = 1
    batch["valid"][:] = True
    return batch


def file_of(job: dict, folder: str) -> str:
    """Returns where a row's compiled program lies."""
    return os.path.join(folder, "-".join(str(job[name]) for name in ("size", "input_size", *AXES)) + ".bin")


def mesh_of(job: dict):
    """Returns the mesh of one device: this machine's, or that of the target."""
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    from unilseg_jax.training import planning, sharding

    if not job["target"]:
        return planning.one_device()
    with open(job["target"]) as file:
        described = topologies.get_topology_desc("target", "cuda", target_config=file.read(), topology="1x1x1")
    devices = np.array(described.devices[:1]).reshape(1, 1)
    return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * len(sharding.AXES))


def load(job: dict, program, shapes: dict):
    """Returns the compiled step that `save` wrote."""
    import jax
    from jax.experimental import serialize_executable

    path = file_of(job, job["load"])
    if not os.path.exists(path):
        sys.exit(f"no {path}; make it with --save {job['load']}")
    with open(path, "rb") as file:
        # The trees are not in the file: they are made of classes that only this code knows.
        taken = jax.tree.structure(((program.state, shapes), {}))
        given = jax.tree.structure(jax.eval_shape(program.step, program.state, shapes))
        return serialize_executable.deserialize_and_load(file.read(), taken, given, execution_devices=jax.devices()[:1])


def save(job: dict, compiled) -> None:
    """Writes a compiled step."""
    from jax.experimental import serialize_executable

    os.makedirs(job["save"], exist_ok=True)
    path = file_of(job, job["save"])
    with open(f"{path}.part", "wb") as file:
        file.write(serialize_executable.serialize(compiled)[0])
    os.replace(f"{path}.part", path)


def measure(job: dict) -> dict:
    """Returns the numbers of a row; of one that is saved, seconds of compiling and memory."""
    import jax

    from unilseg_jax.training import planning

    config = config_of(job)
    shapes = planning.batch_of(config, config.input.batch_size)
    program = planning.program(config, mesh_of(job))
    began = time.perf_counter()
    if job["load"]:
        compiled = load(job, program, shapes)
    else:
        compiled = program.step.lower(program.state, shapes).compile()
    compiling = time.perf_counter() - began
    if job["save"]:
        save(job, compiled)
        print(COMPILED, flush=True)
        return {"compiling": compiling, "memory": _planned_memory(compiled)}
    plain = planning.program(config, planning.one_device(), remat="none")
    flops = plain.step.lower(plain.state, planning.batch_of(config, 1)).cost_analysis()["flops"]
    state, batch = random_state(program.state), random_batch(config, shapes)
    print(COMPILED, flush=True)
    if not sys.stdin.readline():  # the device is this row's now, or nobody waits for it any more
        sys.exit(1)
    state, batch, seconds = jax.device_put(state), jax.device_put(batch), []
    for turn in range(TURNS + 1):
        count = WARM if turn == 0 else max(job["steps"] // TURNS, 1)
        began = time.perf_counter()
        for _ in range(count):
            state, terms = compiled(state, batch)
        loss = float(jax.device_get(terms["loss"]))
        seconds.append((time.perf_counter() - began) / count)
    assert math.isfinite(loss), f"the loss is {loss}"
    seconds = statistics.median(seconds[1:])
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if memory is None:
        memory = _planned_memory(compiled)
    if job["profile"]:
        with jax.profiler.trace(file_of(job, job["profile"]).removesuffix(".bin")):
            for _ in range(3):
                state, terms = compiled(state, batch)
            jax.block_until_ready(terms)
    return {"seconds": seconds, "compiling": compiling, "flops": flops, "memory": memory}


def _planned_memory(compiled) -> int:
    """Returns the bytes that a compiled step takes by XLA's own analysis."""
    analysis = compiled.memory_analysis()
    return analysis.argument_size_in_bytes + analysis.temp_size_in_bytes


class Row:
    """A row's process: compiles at once, and measures when it is asked."""

    def __init__(self, job: dict):
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--row", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )

    def compiled(self) -> None:
        """Waits until it is compiled, or has failed."""
        for line in self._process.stdout:
            if line.strip() == COMPILED:
                return

    def numbers(self) -> dict:
        """Measures and returns the numbers; `failed` says why there are none."""
        # A row that has failed reads nothing any more.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        lines = self._process.stdout.read().splitlines()
        code = self._process.wait()
        if code == 0:
            return json.loads(lines[-1])
        self._errors.seek(0)
        errors = self._errors.read()
        if "RESOURCE_EXHAUSTED" in errors or code == -9:
            return {"failed": "does not fit"}
        print(errors, file=sys.stderr)
        return {"failed": f"ended with code {code}"}


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
        f"{arguments.input_size} px; XLA_FLAGS: {os.environ.get('XLA_FLAGS') or 'none'}\n\n"
        "| type | remat | prompts | batch | ms per step | pictures/s | phrases/s | TFLOP/s | of peak | peak GiB | "
        "compiled in s |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    axes = (arguments.dtypes, arguments.remats, arguments.prompts, arguments.batch_sizes)
    fixed = {name: getattr(arguments, name) for name in FIXED}
    jobs = [fixed | dict(zip(AXES, values, strict=True)) for values in arguments.rows or itertools.product(*axes)]
    for first in range(0, len(jobs), arguments.jobs):
        some = jobs[first : first + arguments.jobs]
        rows = [Row(job) for job in some]
        for row in rows:
            row.compiled()
        for job, row in zip(some, rows, strict=True):
            print_row(job, row.numbers(), chip)


def print_row(job: dict, row: dict, chip) -> None:
    """Prints what a row measured."""
    dtype, batch_size, prompts = job["dtype"], job["batch_size"], job["prompts"]
    head = f"| {dtype} | {job['remat']} | {prompts} | {batch_size} |"
    if "failed" in row:
        print(f"{head} {row['failed']} | | | | | | |", flush=True)
        return
    if job["save"]:
        print(f"{head} saved | | | | | {row['memory'] / 2**30:.2f} | {row['compiling']:.0f} |", flush=True)
        return
    speed = batch_size / row["seconds"]
    flops = speed * row["flops"]
    share = f"{flops / chip.peak(dtype):.1%}" if chip else "?"
    print(
        f"{head} {1e3 * row['seconds']:.1f} | {speed:.2f} | {speed * prompts:.2f} | {flops / 1e12:.3g} | {share} | "
        f"{row['memory'] / 2**30:.2f} | {row['compiling']:.0f} |",
        flush=True,
    )


def row_of(text: str) -> tuple[str, str, int, int]:
    """Returns the values of AXES that `TYPE:REMAT:PROMPTS:BATCH` names."""
    dtype, remat, prompts, batch_size = text.split(":")
    return dtype, remat, int(prompts), int(batch_size)


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
    parser.add_argument("--jobs", type=int, default=1, help="rows that are compiled side by side")
    parser.add_argument(
        "--rows", type=row_of, nargs="+", metavar="TYPE:REMAT:PROMPTS:BATCH", help="these, in place of all combinations"
    )
    parser.add_argument("--profile", metavar="DIR", help="write a trace of three more steps of each row there")
    parser.add_argument("--save", metavar="DIR", help="compile the rows and keep them there, measure nothing")
    parser.add_argument("--target", metavar="FILE", help="with --save: the GPU to compile for, described")
    parser.add_argument("--load", metavar="DIR", help="measure rows that --save kept there")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: at least 1 is wanted")
    if arguments.load and arguments.save:
        parser.error("--load and --save: one of them is wanted")
    if arguments.profile and arguments.save:
        parser.error("--profile measures and --save does not: one of them is wanted")
    if arguments.target and not arguments.save:
        parser.error("--target is for --save, which compiles for a GPU that is not here")
    if arguments.row:
        print(json.dumps(measure(arguments.row)))
    else:
        print_table(arguments)


if __name__ == "__main__":
    main()
