#!/usr/bin/env python3
"""A member of a consumer group: reads its share of a topic, and prints JSON lines.

    ./group_member.py --bootstrap localhost:7401 --group billing orders

Start several; each line says which partitions a member reads, or a record that it has
processed. SIGTERM and Ctrl-C: what was processed is committed, and the others take over.
"""

import argparse
import json
import signal
import sys
import time
import uuid

from cluster import Cluster, OttlaError
from consumer import as_json, offset_of

from ottla.v1 import (
    group_service_pb2 as groups,
    log_service_pb2 as log,
    types_pb2 as types,
)

# How long one fetch waits for records, in milliseconds: with many partitions a member that
# asks one after the other must still be heard in time.
FETCH_WAIT_MS = 50

# Bytes of one fetch. What was fetched is processed before anything is given back.
FETCH_BYTES = 64 * 1024

# The coordinator said: give everything up, and join again with epoch 0.
LOST = ("UNKNOWN_MEMBER", "FENCED_MEMBER_EPOCH")


class Member:
    """What the group knows of it, and it of the group. One thread does everything, so
    nothing is being processed while partitions are given back."""

    def __init__(self, cluster, group, topic):
        self.cluster, self.group, self.topic = cluster, group, topic
        self.id = str(uuid.uuid4())
        self.epoch = 0
        self.sequence = 0
        self.due = 0.0
        self.topic_id = b""
        # What it reads, and where it goes on.
        self.positions = {}
        # What the coordinator was told that it reads; None: not certain.
        self.told = None
        self.uncommitted = set()

    def heartbeat(self, leave=False):
        """Says that it is there and what it reads; is told what to read."""
        request = groups.HeartbeatRequest(
            group=self.group, member_id=self.id, member_epoch=self.epoch, client_id="python"
        )
        if leave:
            request.leave = True
        elif self.epoch == 0:
            request.subscription.topics.append(self.topic)
        self.number(request)
        if self.told != set(self.positions):
            self.say_what_is_read(request)

        def again(error):
            # The answer that is lost may have told a new epoch: who says what it reads is
            # believed under the one before, too.
            self.number(request)
            self.say_what_is_read(request)
            return True

        says = set(self.positions)
        call = lambda node, seconds: node.groups.Heartbeat(request, timeout=seconds)
        try:
            answer = self.cluster.ask_coordinator(self.group, call, again=again)
        except OttlaError as error:
            if leave and error.reason in (*LOST, "UNKNOWN_GROUP"):
                return
            if error.reason not in LOST:
                raise
            # Others may read these partitions by now: nothing of them is committed.
            self.give_back(set(self.positions), commit=False)
            self.epoch, self.told, self.due = 0, None, 0.0
            return
        self.told = says
        self.epoch = answer.member_epoch
        self.due = time.monotonic() + answer.heartbeat_interval_ms / 1000
        if answer.HasField("assignment") and not leave:
            self.follow(answer.assignment.topics)

    def number(self, request):
        # One that is delayed and comes after this one is not believed.
        self.sequence += 1
        request.sequence = self.sequence

    def say_what_is_read(self, request):
        # Present and empty is not the same as absent.
        request.owned.SetInParent()
        del request.owned.topics[:]
        if self.positions:
            request.owned.topics.add(topic_id=self.topic_id, partitions=sorted(self.positions))

    def follow(self, assignment):
        """Gives back what is not assigned, then takes what is new."""
        wanted = set()
        for topic in assignment:
            self.topic_id = topic.topic_id
            wanted.update(topic.partitions)
        self.give_back(set(self.positions) - wanted, commit=True)
        new = wanted - set(self.positions)
        if new:
            self.positions.update(self.committed(new))
        if self.told != set(self.positions):
            # The coordinator waits to hear it: others may have to wait for what is given back.
            self.due = 0.0
            event(member=self.id, reads=sorted(self.positions))

    def give_back(self, partitions, commit):
        if commit and partitions & self.uncommitted:
            self.commit()
        for partition in partitions:
            del self.positions[partition]
        self.uncommitted -= partitions
        if partitions and not commit:
            event(member=self.id, lost=sorted(partitions))

    def committed(self, partitions):
        """Where the group goes on; where nothing was committed, at the start."""
        request = groups.FetchOffsetsRequest(group=self.group)
        request.partitions.add(topic_id=self.topic_id, partitions=sorted(partitions))
        call = lambda node, seconds: node.groups.FetchOffsets(request, timeout=seconds)
        found = self.cluster.ask_coordinator(self.group, call).offsets
        offsets = {one.partition: one.offset for one in found}
        for partition in partitions - set(offsets):
            start = log.OFFSET_POSITION_EARLIEST
            offsets[partition] = offset_of(self.cluster, self.topic, partition, start)
        return offsets

    def poll(self):
        """Processes what there is in each partition, then commits."""
        for partition in list(self.positions):
            if time.monotonic() >= self.due:
                return
            request = log.FetchRequest(
                topic=self.topic,
                topic_id=self.topic_id,
                partition=partition,
                offset=self.positions[partition],
                max_bytes=FETCH_BYTES,
                max_wait_ms=FETCH_WAIT_MS,
                format=types.PAYLOAD_FORMAT_RECORDS,
            )
            call = lambda node, seconds: node.log.Fetch(request, timeout=seconds)
            try:
                # Not for longer than the group waits for a heartbeat.
                answer = self.cluster.ask_leader(self.topic, partition, call, within=0.5)
            except OttlaError as error:
                if error.reason == "OFFSET_OUT_OF_RANGE":
                    # Retention was quicker than the group.
                    self.positions[partition] = int(error.numbers["log_start_offset"])
                elif not error.retriable:
                    raise
                continue
            for record in answer.records.records:
                print(json.dumps({"member": self.id, **json.loads(as_json(partition, record))}))
            if answer.next_offset != self.positions[partition]:
                self.positions[partition] = answer.next_offset
                self.uncommitted.add(partition)
        sys.stdout.flush()
        if self.uncommitted:
            self.commit()

    def commit(self):
        request = groups.CommitOffsetsRequest(
            group=self.group, member_id=self.id, member_epoch=self.epoch
        )
        for partition in sorted(self.uncommitted):
            offset = self.positions[partition]
            request.offsets.add(topic_id=self.topic_id, partition=partition, offset=offset)
        call = lambda node, seconds: node.groups.CommitOffsets(request, timeout=seconds)
        try:
            # Said twice it is so once: whatever became of an attempt, it may be repeated.
            self.cluster.ask_coordinator(self.group, call)
        except OttlaError as error:
            if error.reason not in (*LOST, "STALE_MEMBER_EPOCH"):
                raise
            # The next heartbeat says what to do; what is still read then is committed then.
            self.due = 0.0
            return
        self.uncommitted.clear()

    def run(self, stopped):
        while not stopped():
            if time.monotonic() >= self.due:
                self.heartbeat()
            elif self.positions:
                self.poll()
            else:
                time.sleep(min(0.1, max(0.0, self.due - time.monotonic())))
        if self.epoch > 0:
            if self.uncommitted:
                self.commit()
            self.heartbeat(leave=True)
        event(member=self.id, left=True)


def event(**what):
    print(json.dumps(what), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", default="localhost:7401")
    parser.add_argument("--group", required=True)
    parser.add_argument("topic")
    args = parser.parse_args()
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))
    cluster = Cluster(args.bootstrap)
    Member(cluster, args.group, args.topic).run(lambda: bool(stop))
    cluster.close()


if __name__ == "__main__":
    main()
