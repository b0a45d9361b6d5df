"""Processes of a peer: free ports, waiting for a state, processor time and memory."""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# How often a state that is waited for is looked at, and longest wait for it, in seconds.
LOOK = 0.05
PATIENCE = 120

# Units of processor time in /proc, a second.
TICKS = os.sysconf("SC_CLK_TCK")


def free_ports(count):
    """Ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(what, true):
    """Waits until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"bench/run: no {what} within {PATIENCE} s")
        time.sleep(LOOK)


def cpu_seconds(pids):
    """User and system time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def peak_bytes(pids):
    """The most memory that any of the processes has had."""
    peaks = []
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peaks.append(int(line.split()[1]) * 1024)
    return max(peaks)


def stop(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def build_load(name):
    """The program that loads a peer, built by the first who needs it."""
    target = HERE.parent / "target" / "bench-peers"
    build = ["cargo", "build", "--release", "--locked", "--bin", name]
    folder, places = HERE / "peers", dict(os.environ, CARGO_TARGET_DIR=str(target))
    subprocess.run(build, check=True, cwd=folder, env=places, stdout=sys.stderr)
    return str(target / "release" / name)


def load(program, servers, pids, args, more=()):
    """Runs the load; returns its figures with those of the servers."""
    in_flight = args.in_flight or max(args.batch_bytes // args.record_size, 1) * 8
    command = [
        program, *more, "--servers", ",".join(servers), "--streams", str(args.partitions),
        "--replicas", str(args.replication_factor), "--record-size", str(args.record_size),
        "--producers", str(args.producers), "--in-flight", str(in_flight),
        "--duration", str(args.duration), "--warm-up", str(args.warm_up),
    ]
    before, children = cpu_seconds(pids), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    report = json.loads(done.stdout)
    # Of the whole load, its warm-up too: so are the records.
    gigabytes = report["records"]["acknowledged"] * args.record_size / 1e9
    if not gigabytes:
        sys.exit(f"bench/run: nothing was acknowledged: {report['records']}")
    measured = report["measured"]
    return {
        "bytes_per_second": measured["bytes_per_second"],
        "records_per_second": measured["records_per_second"],
        "cpu_seconds_per_gb": (cpu_seconds(pids) - before + client) / gigabytes,
        "client_cpu_seconds_per_gb": client / gigabytes,
        "peak_bytes": peak_bytes(pids),
        "latency_ms": measured["latency_ms"],
        "failed": report["records"]["failed"],
    }
