#!/usr/bin/env python3
"""Runs the examples against a cluster of their own, kills a leader under them, and checks
what they have read.

Runs itself in a virtual environment in the target directory, made at first use (needs
PyPI). Builds `ottla` unless OTTLA names a binary. Whatever happens, it stops what it
started.
"""

import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REQUIREMENTS = HERE / "requirements.txt"

# A state is waited for so long, in seconds: many times what it takes on a slow machine.
PATIENCE = 120

TOPIC, GROUP, PARTITIONS = "orders", "billing", 4
RECORDS = 3_000


def reexec_in_venv():
    venv = TARGET / "python-examples-venv"
    python, ready = venv / "bin" / "python", venv / "ready"
    if not ready.exists() or ready.read_text() != REQUIREMENTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]
        subprocess.run(install, check=True)
        ready.write_text(REQUIREMENTS.read_text())
    os.execv(python, [python, __file__, "--in-venv"])


def binary():
    if "OTTLA" in os.environ:
        return os.environ["OTTLA"]
    subprocess.run(["cargo", "build", "--quiet", "--locked", "-p", "ottla"], cwd=ROOT, check=True)
    return str(TARGET / "debug" / "ottla")


class Lines:
    """JSON lines of a process that was started, as they come."""

    def __init__(self, command, env=None):
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=env, text=True, start_new_session=True
        )
        self.queue = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.queue.put(json.loads(line))
        self.queue.put(None)

    def next(self, deadline):
        """The next line; None at the end."""
        return self.queue.get(timeout=max(0.01, deadline - time.monotonic()))

    def stop(self):
        """Asks it to end, and waits until it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Dev(Lines):
    """`ottla dev`: three nodes, each a process that may be killed."""

    def __init__(self, ottla, directory):
        super().__init__([ottla, "dev", "--any-port", "--dir", directory, "--format", "json"])
        self.pids, self.bootstrap = {}, None
        deadline = time.monotonic() + PATIENCE
        while self.bootstrap is None:
            event = self.next(deadline)
            assert event is not None, "`ottla dev` ended"
            if event["event"] == "node":
                self.pids[event["node"]] = event["pid"]
            elif event["event"] == "ready":
                self.bootstrap = event["bootstrap"]


class Member(Lines):
    """A group member, and what it has said."""

    def __init__(self, dev, env):
        script = [sys.executable, HERE / "group_member.py"]
        where = ["--bootstrap", dev.bootstrap, "--group", GROUP, TOPIC]
        super().__init__([*script, *where], env)
        self.reads, self.records, self.left = set(), [], False

    def listen(self):
        """Takes in what it has said meanwhile."""
        while True:
            try:
                said = self.queue.get_nowait()
            except queue.Empty:
                return
            if said is None:
                assert self.left, "a member ended by itself"
                return
            if "reads" in said:
                self.reads = set(said["reads"])
            elif "lost" in said:
                self.reads -= set(said["lost"])
            elif "left" in said:
                self.reads, self.left = set(), True
            else:
                self.records.append(said)


def wait_until(what, members, look):
    deadline = time.monotonic() + PATIENCE
    while True:
        for member in members:
            member.listen()
        if look():
            return
        if time.monotonic() > deadline:
            shown = [(sorted(m.reads), len(m.records), m.left) for m in members]
            sys.exit(f"{what}: not within {PATIENCE} s; members: {shown}")
        time.sleep(0.05)


def create_topic(cluster):
    from ottla.v1 import topic_service_pb2 as topics

    # Sent again under the same id it is carried out once.
    request = topics.CreateTopicRequest(
        name=TOPIC, partitions=PARTITIONS, request_id=os.urandom(16)
    )
    cluster.ask_any(lambda node, seconds: node.topics.CreateTopic(request, timeout=seconds))


def friendly_records(cluster):
    """The simplest there is: records as they are, no batch, no producer id."""
    from ottla.v1 import log_service_pb2 as log, topic_service_pb2 as topics, types_pb2 as types

    request = topics.CreateTopicRequest(name="hello", partitions=1, request_id=os.urandom(16))
    cluster.ask_any(lambda node, seconds: node.topics.CreateTopic(request, timeout=seconds))
    record = types.Record(key=b"k", value=b"hello", headers=[types.Header(name=b"h")])
    records = types.RecordSet(records=[record])
    write = log.ProduceRequest(topic="hello", acks=log.ACKS_ALL, records=records)
    # Whatever may have been written is not sent again: nobody would know it.
    definite = lambda error: not error.indefinite
    call = lambda node, seconds: node.log.Produce(write, timeout=seconds)
    answer = cluster.ask_leader("hello", 0, call, again=definite)
    assert (answer.base_offset, answer.record_count) == (0, 1), answer
    fetch = log.FetchRequest(topic="hello", max_wait_ms=1000)
    call = lambda node, seconds: node.log.Fetch(fetch, timeout=seconds)
    found = cluster.ask_leader("hello", 0, call)
    (read,) = found.records.records
    assert (read.key, read.value, read.offset) == (b"k", b"hello", 0), read
    assert not read.headers[0].HasField("value"), "null is not empty"


def typed_errors(cluster):
    """Errors say what can be done about them."""
    from cluster import OttlaError
    from ottla.v1 import group_service_pb2 as groups, log_service_pb2 as log

    def refused(call):
        try:
            call()
        except OttlaError as error:
            assert not error.retriable and not error.indefinite, error
            return error
        sys.exit("it was not refused")

    fetch = log.FetchRequest(topic="hello", offset=99)
    call = lambda node, seconds: node.log.Fetch(fetch, timeout=seconds)
    error = refused(lambda: cluster.ask_leader("hello", 0, call))
    assert (error.reason, error.numbers["high_watermark"]) == ("OFFSET_OUT_OF_RANGE", "1"), error
    commit = groups.CommitOffsetsRequest(group="g", member_id="nobody", member_epoch=1)
    call = lambda node, seconds: node.groups.CommitOffsets(commit, timeout=seconds)
    error = refused(lambda: cluster.ask_coordinator("g", call))
    assert error.reason == "UNKNOWN_MEMBER", error


def agree_with_the_command_line(ottla, dev):
    """A key lives where other clients look for it, and a batch is one that they read."""
    from cluster import partition_for_key

    where = ["--bootstrap", dev.bootstrap]
    run = [ottla, "consume", TOPIC, "--until", "end", "--format", "json", *where]
    output = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    assert len(records) == RECORDS, f"{len(records)} records"
    for record in records:
        assert record["partition"] == partition_for_key(record["key"].encode(), PARTITIONS)
        assert record["headers"] == [{"name": "from", "value": "python"}]
    mine = [ottla, "produce", TOPIC, "--key-separator", ":", *where]
    lines = "".join(f"key-{n}:theirs\n" for n in range(50))
    subprocess.run(mine, check=True, input=lines, text=True, stderr=subprocess.DEVNULL)
    output = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in output.splitlines():
        record = json.loads(line)
        assert record["partition"] == partition_for_key(record["key"].encode(), PARTITIONS), record


def produce_while_a_leader_dies(cluster, dev, members, env):
    """Returns when everything is acknowledged. The leader of partition 0 is killed while the
    second third is written."""
    script = [sys.executable, HERE / "producer.py", "--bootstrap", dev.bootstrap, TOPIC]
    pipe = subprocess.PIPE
    producer = subprocess.Popen(script, stdin=pipe, stderr=pipe, env=env, text=True)

    def feed(third):
        each = RECORDS // 3
        numbers = range(third * each, (third + 1) * each)
        producer.stdin.write("".join(f"key-{n % 50}:{n}\n" for n in numbers))
        producer.stdin.flush()

    feed(0)
    some = RECORDS // 6
    wait_until("something is read", members, lambda: sum(len(m.records) for m in members) > some)
    cluster.refresh(TOPIC)
    address = cluster.leaders[TOPIC, 0][1]
    killed = next(id for id, known in cluster.addresses.items() if known == address)
    feed(1)
    os.kill(dev.pids[killed], signal.SIGKILL)
    feed(2)
    _, told = producer.communicate(timeout=PATIENCE)
    assert producer.returncode == 0, told
    repeated = int(told.split(" records written, ")[1].split()[0])
    assert repeated > 0, "nobody noticed that a leader died"
    return killed


def check_everything_was_read(members):
    """At least once by the group, and every partition in order."""
    for member in members:
        positions = {}
        for record in member.records:
            before = positions.get(record["partition"], -1)
            # Read anew after a rebalance, or where a commit was lost; never skipped.
            assert record["offset"] <= before + 1 or before == -1, (before, record)
            positions[record["partition"]] = record["offset"]
    places = {(r["partition"], r["offset"]) for m in members for r in m.records}
    ends = {p: max(o for q, o in places if q == p) for p, _ in places}
    missing = [(p, o) for p, end in ends.items() for o in range(end) if (p, o) not in places]
    assert not missing, f"skipped {missing[:5]}"


def check_it_is_there_once(dev, env):
    script = [sys.executable, HERE / "consumer.py", "--bootstrap", dev.bootstrap, TOPIC]
    output = subprocess.run(script, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    values = [json.loads(line)["value"] for line in output.splitlines()]
    assert len(values) == RECORDS, f"{len(values)} records, {RECORDS} were acknowledged"
    assert {int(value) for value in values} == set(range(RECORDS))
    by_key = {}
    for value in map(int, values):
        assert by_key.get(value % 50, -1) < value, "a key's records are out of order"
        by_key[value % 50] = value


def story(ottla, dev, members, env):
    from cluster import Cluster

    cluster = Cluster(dev.bootstrap)
    friendly_records(cluster)
    typed_errors(cluster)
    create_topic(cluster)
    members += [Member(dev, env), Member(dev, env)]
    everything = set(range(PARTITIONS))
    shared = lambda: (
        all(len(member.reads) == PARTITIONS // 2 for member in members)
        and members[0].reads | members[1].reads == everything
    )
    wait_until("two members share the partitions", members, shared)

    killed = produce_while_a_leader_dies(cluster, dev, members, env)
    values = lambda: {int(r["value"]) for m in members for r in m.records}
    wait_until("the members read everything", members, lambda: len(values()) == RECORDS)
    check_everything_was_read(members)
    check_it_is_there_once(dev, env)

    members[0].process.send_signal(signal.SIGTERM)
    wait_until("one leaves, the other reads all", members, lambda: members[1].reads == everything)
    agree_with_the_command_line(ottla, dev)
    theirs = lambda: sum(record["value"] == "theirs" for record in members[1].records)
    wait_until("the last member reads what is new", members, lambda: theirs() >= 50)
    check_everything_was_read(members)
    cluster.close()
    print(f"a group of two read the {RECORDS} records written while node {killed} was killed")


def main():
    # However it is ended, it stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    ottla = binary()
    with tempfile.TemporaryDirectory() as directory:
        generated = pathlib.Path(directory) / "generated"
        from generate import generate

        generate(generated)
        sys.path.append(str(generated))
        env = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{generated}"}
        members, dev = [], Dev(ottla, str(pathlib.Path(directory) / "cluster"))
        try:
            story(ottla, dev, members, env)
        finally:
            for process in [*members, dev]:
                process.stop()


if __name__ == "__main__":
    main() if "--in-venv" in sys.argv else reexec_in_venv()
