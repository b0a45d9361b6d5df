#!/usr/bin/env python3
"""Reads a partition, or all of a topic, from the start to its end, and prints JSON lines.

    ./consumer.py --bootstrap localhost:7401 orders
"""

import argparse
import json
import queue
import time

import grpc
from cluster import Backoff, Cluster, OttlaError, error_of

from ottla.v1 import log_service_pb2 as log, types_pb2 as types

# What the node may send ahead: it never sends more than both allow.
CREDIT_RECORDS = 1_000
CREDIT_BYTES = 1024 * 1024

# How long a reader looks for a leader before it gives up, in seconds.
PATIENCE_SECONDS = 30.0


def offset_of(cluster, topic, partition, position):
    """Of the start or the end of a partition."""
    request = log.ListOffsetsRequest(topic=topic, partition=partition, position=position)
    call = lambda node, seconds: node.log.ListOffsets(request, timeout=seconds)
    return cluster.ask_leader(topic, partition, call).offset


def read(cluster, topic, partition, offset, end):
    """Yields the records of a partition up to `end`, whoever leads it."""
    while offset < end:
        try:
            for record, position in stream(cluster, topic, partition, offset):
                if record is not None and record.offset < end:
                    yield record
                # Where the log was compacted the position moves on without a record.
                offset = position
                if offset >= end:
                    return
        except grpc.RpcError as rpc_error:
            error = error_of(rpc_error)
            if not error.retriable:
                raise error from None
            wait_for_leader(cluster, topic, partition, error)


def stream(cluster, topic, partition, offset):
    """One stream of one leader: records, each with the offset to go on from after it."""
    requests = queue.Queue()
    start = log.ConsumeStart(
        topic=topic, partition=partition, offset=offset, format=types.PAYLOAD_FORMAT_RECORDS
    )
    requests.put(
        log.ConsumeRequest(
            start=start, add_credit_records=CREDIT_RECORDS, add_credit_bytes=CREDIT_BYTES
        )
    )
    # A stream ends when its caller does: it has no deadline.
    call = cluster.ask_leader(
        topic, partition, lambda node, _: node.log.Consume(iter(requests.get, None))
    )
    try:
        for answer in call:
            records = answer.records.records
            for record in records:
                yield record, record.offset + 1
            yield None, answer.next_offset
            # What was processed may be sent again in new records. The node counts the
            # bytes of the set of records as they are encoded.
            requests.put(
                log.ConsumeRequest(
                    add_credit_records=len(records), add_credit_bytes=answer.records.ByteSize()
                )
            )
    finally:
        requests.put(None)
        call.cancel()


def wait_for_leader(cluster, topic, partition, error):
    """Until somebody leads who answers: a hint is followed by asking."""
    cluster.leaders[topic, partition] = (
        cluster.leaders.get((topic, partition), (-1, None))[0],
        error.leader,
    )
    deadline, backoff = time.monotonic() + PATIENCE_SECONDS, Backoff()
    while True:
        try:
            offset_of(cluster, topic, partition, log.OFFSET_POSITION_EARLIEST)
            return
        except OttlaError as lost:
            if not lost.retriable or time.monotonic() > deadline:
                raise
            backoff.pause(lost.retry_after, deadline)


def as_json(partition, record):
    text = lambda data: data.decode("utf-8", "replace")
    return json.dumps(
        {
            "partition": partition,
            "offset": record.offset,
            # Null differs from empty.
            "key": text(record.key) if record.HasField("key") else None,
            "value": text(record.value) if record.HasField("value") else None,
            "headers": [[text(h.name), text(h.value)] for h in record.headers],
        }
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", default="localhost:7401")
    parser.add_argument("topic")
    args = parser.parse_args()
    cluster = Cluster(args.bootstrap)
    partitions = range(cluster.partitions(args.topic))
    # The ends first: what is written meanwhile is left out.
    ends = [offset_of(cluster, args.topic, p, log.OFFSET_POSITION_LATEST) for p in partitions]
    for partition, end in zip(partitions, ends):
        start = offset_of(cluster, args.topic, partition, log.OFFSET_POSITION_EARLIEST)
        for record in read(cluster, args.topic, partition, start, end):
            print(as_json(partition, record), flush=True)
    cluster.close()


if __name__ == "__main__":
    main()
