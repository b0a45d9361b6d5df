#!/usr/bin/env python3
"""Writes lines `key:value` of standard input to a topic, each once, whoever dies.

    printf 'alice:1\nbob:2\n' | ./producer.py --bootstrap localhost:7401 orders
"""

import argparse
import sys
import time

from batch import encode
from cluster import Cluster, partition_for_key

from ottla.v1 import log_service_pb2 as log, producer_service_pb2 as producers

# Records of a partition that are sent together, at most.
BATCH_RECORDS = 50

# How long a batch may take to be written, in seconds, with all its attempts.
DELIVERY_SECONDS = 60.0

# Sequences go on with 0 after this one.
LAST_SEQUENCE = 2**31 - 1


class Producer:
    """One batch of a partition at a time: nothing can overtake, nothing needs numbering anew."""

    def __init__(self, cluster):
        self.cluster = cluster
        answer = cluster.ask_any(
            lambda node, seconds: node.producers.InitProducerId(
                producers.InitProducerIdRequest(), timeout=seconds
            )
        )
        self.id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequences = {}
        self.sent_again = 0

    def send(self, topic, partition, records):
        """Returns the offset of the first record once every in-sync replica has all."""
        sequence = self.sequences.get((topic, partition), 0)
        # Made once: a batch that is sent again is the same, byte for byte, and the leader,
        # whoever it is by then, answers with the offset that it has.
        payload = encode(records, int(time.time() * 1000), self.id, self.epoch, sequence)

        def attempt(node, seconds):
            request = log.ProduceRequest(
                topic=topic,
                partition=partition,
                acks=log.ACKS_ALL,
                timeout_ms=int(seconds * 1000),
                record_batch=payload,
            )
            return node.log.Produce(request, timeout=seconds)

        def again(error):
            self.sent_again += 1
            return True

        answer = self.cluster.ask_leader(topic, partition, attempt, DELIVERY_SECONDS, again)
        self.sequences[topic, partition] = (sequence + len(records)) % (LAST_SEQUENCE + 1)
        return answer.base_offset


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", default="localhost:7401")
    parser.add_argument("topic")
    args = parser.parse_args()
    cluster = Cluster(args.bootstrap)
    partitions = cluster.partitions(args.topic)
    producer = Producer(cluster)
    waiting, written = {}, 0

    def flush(partition):
        nonlocal written
        records = waiting.pop(partition)
        producer.send(args.topic, partition, records)
        written += len(records)

    for line in sys.stdin.buffer:
        key, _, value = line.rstrip(b"\n").partition(b":")
        partition = partition_for_key(key, partitions)
        waiting.setdefault(partition, []).append((key, value, [(b"from", b"python")]))
        if len(waiting[partition]) == BATCH_RECORDS:
            flush(partition)
    for partition in list(waiting):
        flush(partition)
    cluster.close()
    print(f"{written} records written, {producer.sent_again} attempts repeated", file=sys.stderr)


if __name__ == "__main__":
    main()
