"""What devices tell one another in a training step, and how well many of them would work together.

    python benchmarks/scaling.py [--size base] [--input-size 96] [--devices 1 2 4 8] [--fsdp 1] [--chip H200]

The step is compiled for simulated devices of a CPU, in one process and in two, and its collectives are counted in the
compiled program; nothing is run, and compiling takes ten minutes on 2 CPU cores. What is exchanged are gradients,
parameters (fsdp) and the statistics of batch norm, so the picture's size does not matter; --input-size can be small,
and a second size would show if it did.

The prediction, for --share pictures per device of --full-size px:
    time to compute   FLOPs of the pictures by XLA's count, at --utilisation of the chip's peak in bfloat16
    time to tell      bytes that leave a device, within its node by NVLink (training/chips.py) and between nodes by
                      an InfiniBand port of its own, one after the other, and --latency per collective
    bytes             a ring of n sends (n - 1) / n of an array to gather it, or to scatter its sum, and twice that
                      for an all-reduce; with several nodes that is done within each, and between the nodes by each
                      device for its share of the array, as NCCL's rings and trees load the ports
    efficiency        compute / (compute + tell) if nothing overlaps, compute / max(compute, tell) if all does
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8}
OPERATIONS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ALL, DATA, FSDP = "all", "data", "fsdp"


# ---- The compiled program --------------------------------------------------------------------------------


def collectives(text: str, devices: int) -> list[dict]:
    """Returns the collectives of a compiled program: operation, bytes of the result, devices that take part, mesh axis.

    Args:
        text: of the program, as XLA prints it. What stands in a loop is counted once.
        devices: of the program; groups that are not named are of all.
    """
    found = []
    pattern = re.compile(rf"= (.+?) ({'|'.join(OPERATIONS)})(-start)?\(")
    for line in text.splitlines():
        match = pattern.search(line)
        if not match:
            continue
        arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", match[1])
        if match[3] and match[2] != "all-reduce":  # the operand, then the result
            arrays = arrays[len(arrays) // 2 :]
        size = 0
        for kind, shape in arrays:
            count = 1
            for length in filter(None, shape.split(",")):
                count *= int(length)
            size += count * BYTES[kind]
        group = _group_size(line, devices)
        axis = ALL if group == devices else DATA if _is_strided(line) else FSDP
        found.append({"operation": match[2], "bytes": size, "group": group, "axis": axis})
    return found


def _group_size(line: str, devices: int) -> int:
    """Returns how many devices exchange with one another."""
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    return devices


def _is_strided(line: str) -> bool:
    """Returns whether a group is one along `data`: devices of one fsdp group have numbers that follow one another."""
    if match := re.search(r"replica_groups=\{\{(\d+),(\d+)", line):
        return int(match[2]) - int(match[1]) > 1
    return bool(re.search(r"replica_groups=\[\d+,\d+\]<=\[[\d,]+\]T", line))


def group_of(one: dict, devices: int, fsdp: int) -> int:
    """Returns how many devices take part in a collective where there are more devices: fsdp stays, data grows."""
    return {ALL: devices, DATA: devices // fsdp, FSDP: one["group"]}[one["axis"]]


def of_node(one: dict, devices: int, fsdp: int, node: int) -> int:
    """Returns how many devices of one node take part in a collective; those of an fsdp group lie side by side."""
    side_by_side = min(devices, node)
    return {ALL: side_by_side, DATA: max(side_by_side // fsdp, 1), FSDP: min(one["group"], node)}[one["axis"]]


def sent_bytes(operation: str, size: int, group: int, local: int) -> tuple[float, float]:
    """Returns the bytes that a device sends for a collective: within its node, and to other nodes.

    Args:
        operation: one of `OPERATIONS`.
        size: bytes of the result.
        group: devices that take part.
        local: those of them in one node; divides `group`.
    """
    nodes = group // local
    if operation == "collective-permute":
        return (0.0, float(size)) if nodes > 1 else (float(size), 0.0)
    if operation == "all-to-all":
        return (local - 1) / group * size, (group - local) / group * size
    whole = size * group if operation == "reduce-scatter" else size  # the result is one of `group` parts
    times = 2 if operation == "all-reduce" else 1
    return times * (local - 1) / local * whole, times * (nodes - 1) / nodes * whole / local


# ---- Compiling -------------------------------------------------------------------------------------------


def config_of(size: str, input_size: int, batch_size: int):
    """Returns the config of a step."""
    from unilseg_jax.config import base_config, shrink, use_swin

    config = base_config()
    shrink(config) if size == "least" else use_swin(config, size)
    config.input.update(size=input_size, batch_size=batch_size)
    config.dtype = "bfloat16"
    return config


def compile_step(job: dict) -> list[dict]:
    """Returns the collectives of a step on the devices of all processes."""
    import jax

    from unilseg_jax.training import planning, sharding

    if job["processes"] > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(job["coordinator"], job["processes"], job["process"])
    devices = jax.device_count()
    config = config_of(job["size"], job["input_size"], devices)
    mesh = sharding.make_mesh(devices, job["fsdp"])
    program = planning.program(config, mesh)
    lowered = program.step.lower(program.state, planning.batch_of(config, devices))
    return collectives(lowered.compile().as_text(), devices)


def ask(devices: int, processes: int, arguments: argparse.Namespace) -> list[dict]:
    """Returns the collectives of a step, compiled in as many processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices // processes}"
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    job = {"size": arguments.size, "input_size": arguments.input_size, "processes": processes}
    job |= {"coordinator": coordinator, "fsdp": min(arguments.fsdp, devices)}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--job", json.dumps(job | {"process": process})],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for process in range(processes)
    ]
    answers = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process ended early; its message stands above")
    programs = [json.loads(answer.splitlines()[-1]) for answer in answers]
    assert all(each == programs[0] for each in programs), "the processes have other programs"
    return programs[0]


# ---- The tables ------------------------------------------------------------------------------------------


def print_counts(arguments: argparse.Namespace) -> list[dict]:
    """Prints what is exchanged per step; returns the collectives of the largest number of devices."""
    print(
        f"Swin {arguments.size}, {arguments.input_size} px, fsdp {arguments.fsdp}\n\n"
        "| devices | processes | operation | number | MB, result | MB sent per device |\n|---|---|---|---|---|---|"
    )
    sides = [(devices, 1) for devices in arguments.devices]
    sides += [(devices, 2) for devices in arguments.devices[-1:] if devices > 1 and arguments.processes > 1]
    found = []
    for devices, processes in sides:
        print(f"compiling for {devices} devices in {processes} process(es)", file=sys.stderr, flush=True)
        found = ask(devices, processes, arguments)
        for operation in OPERATIONS:
            each = [one for one in found if one["operation"] == operation]
            if each or (not found and operation == OPERATIONS[0]):
                size = sum(one["bytes"] for one in each) / 1e6
                sent = sum(sent_bytes(operation, one["bytes"], one["group"], one["group"])[0] for one in each) / 1e6
                print(f"| {devices} | {processes} | {operation} | {len(each)} | {size:.1f} | {sent:.1f} |", flush=True)
    return found


def predict(found: list[dict], flops: float, arguments: argparse.Namespace) -> None:
    """Prints the efficiency of more devices than can be simulated."""
    from unilseg_jax.training.chips import chip_named

    chip = chip_named(arguments.chip)
    compute = arguments.share * flops / (chip.peak("bfloat16") * arguments.utilisation)
    print(
        f"\n{arguments.share} pictures of {arguments.full_size} px per {chip.name}: {flops / 1e9:,.0f} GFLOP each, "
        f"{1e3 * compute:.1f} ms at {arguments.utilisation:.0%} of peak; NVLink {chip.link:g} GB/s, InfiniBand "
        f"{arguments.infiniband:g} GB/s per device\n\n"
        "| devices | per node | MB by NVLink | MB by InfiniBand | ms to tell | efficiency, nothing overlaps | "
        "all overlaps |\n|---|---|---|---|---|---|---|"
    )
    for devices in arguments.predict:
        sent = [0.0, 0.0]
        for one in found:
            group = group_of(one, devices, arguments.fsdp)
            local = of_node(one, devices, arguments.fsdp, arguments.node)
            each = sent_bytes(one["operation"], one["bytes"], group, local)
            sent = [total + more for total, more in zip(sent, each, strict=True)]
        speeds = (1e9 * chip.link, 1e9 * arguments.infiniband)
        tell = sum(size / speed for size, speed in zip(sent, speeds, strict=True))
        tell += 1e-6 * arguments.latency * len(found)
        print(
            f"| {devices} | {min(devices, arguments.node)} | {sent[0] / 1e6:.0f} | {sent[1] / 1e6:.0f} | "
            f"{1e3 * tell:.1f} | {compute / (compute + tell):.1%} | {compute / max(compute, tell):.1%} |"
        )


def main() -> None:
    """Prints the tables, or compiles for one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", help="of the Swin, or least: the least model there is")
    parser.add_argument("--input-size", type=int, default=96, help="px, of the program that is compiled")
    parser.add_argument("--full-size", type=int, default=480, help="px, of the prediction")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--processes", type=int, default=2, help="the last number of devices again in as many; 1: not")
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--predict", type=int, nargs="+", default=[8, 64, 192])
    parser.add_argument("--chip", default="H200")
    parser.add_argument("--node", type=int, default=8, help="devices of a node, between which NVLink is")
    parser.add_argument("--infiniband", type=float, default=50.0, help="GB/s of a device's port, one direction")
    parser.add_argument("--share", type=int, default=8, help="pictures of a device per step")
    parser.add_argument("--utilisation", type=float, default=0.4)
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds per collective")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(compile_step(arguments.job)))
        return
    if arguments.fsdp > 1 and arguments.fsdp >= arguments.devices[-1]:
        parser.error(
            f"--fsdp {arguments.fsdp}: fewer than the last of --devices are wanted, or nothing goes along data"
        )
    if odd := [devices for devices in arguments.predict if devices % arguments.fsdp]:
        parser.error(f"--predict {odd[0]}: a multiple of --fsdp {arguments.fsdp} is wanted")
    if odd := [devices for devices in arguments.predict if devices > arguments.node and devices % arguments.node]:
        parser.error(f"--predict {odd[0]}: whole nodes are wanted, of --node {arguments.node}")
    if max(arguments.node, arguments.fsdp) % min(arguments.node, arguments.fsdp):
        parser.error(f"--fsdp {arguments.fsdp} must divide --node {arguments.node}, or be a multiple of it")
    found = print_counts(arguments)
    from unilseg_jax.training import planning

    config = config_of(arguments.size, arguments.full_size, 1)
    program = planning.program(config, planning.one_device())
    flops = program.step.lower(program.state, planning.batch_of(config, 1)).cost_analysis()["flops"]
    predict(found, flops, arguments)


if __name__ == "__main__":
    main()
