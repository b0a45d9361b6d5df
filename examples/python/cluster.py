"""What every client needs: who leads what, errors as they are meant, and asking again.

`docs/client-guide.md` explains the rules; this is one way to follow them.
"""

import random
import time

import grpc
from google.rpc import error_details_pb2, status_pb2

from ottla.v1 import (
    group_service_pb2 as groups,
    group_service_pb2_grpc as groups_grpc,
    log_service_pb2_grpc as log_grpc,
    metadata_service_pb2 as metadata,
    metadata_service_pb2_grpc as metadata_grpc,
    producer_service_pb2_grpc as producers_grpc,
    topic_service_pb2_grpc as topics_grpc,
)

DOMAIN = "ottla.v1"

# A node sends at most one batch of 8 MiB, as friendly records about twice that.
MAX_MESSAGE_BYTES = 17 * 1024 * 1024

# How long one attempt may take before another node is asked, in seconds. A node that hangs
# must not use up the time of the whole call.
ATTEMPT_SECONDS = 2.0

# Pauses between attempts grow from the first to the second, in seconds, with jitter.
BACKOFF_SECONDS = (0.02, 1.0)


class OttlaError(Exception):
    """An error as the protocol means it (`ottla/v1/error.proto`)."""

    def __init__(self, reason, message, retriable, indefinite):
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        # The same call may succeed later, or elsewhere.
        self.retriable = retriable
        # The write may have been applied. Otherwise it certainly was not.
        self.indefinite = indefinite
        # `host:port` of who is to be asked instead, if it was said.
        self.leader = None
        # Seconds to wait at least.
        self.retry_after = 0.0
        # What else was said, such as `high_watermark`.
        self.numbers = {}


def error_of(rpc_error):
    """Reads an OttlaError out of a gRPC error."""
    for key, value in rpc_error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        status = status_pb2.Status.FromString(value)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        retry_after = 0.0
        for detail in status.details:
            if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
        if info.domain == DOMAIN:
            numbers = dict(info.metadata)
            retriable = numbers.pop("retriable", "false") == "true"
            indefinite = numbers.pop("indefinite", "true") == "true"
            error = OttlaError(info.reason, status.message, retriable, indefinite)
            error.leader = numbers.pop("leader_endpoint", None)
            error.retry_after, error.numbers = retry_after, numbers
            return error
    # None of ours: a broken connection, a deadline, another program. Nothing is known
    # about what was asked.
    lost = rpc_error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    )
    return OttlaError(rpc_error.code().name, rpc_error.details() or "", lost, True)


class Backoff:
    """Pauses that grow, with jitter: not everybody comes back at the same moment."""

    def __init__(self):
        self.next = BACKOFF_SECONDS[0]

    def pause(self, at_least=0.0, deadline=None):
        seconds = max(at_least, self.next * random.uniform(0.5, 1.0))
        if deadline is not None:
            seconds = min(seconds, max(0.0, deadline - time.monotonic()))
        time.sleep(seconds)
        self.next = min(self.next * 2, BACKOFF_SECONDS[1])


class Node:
    """The services of one node, over one connection."""

    def __init__(self, address):
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # A host that vanished without a word is noticed.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 2_000),
            # A node that comes back is connected to soon, not after gRPC's usual minutes.
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # Nodes are told apart by their addresses: no connection is shared.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = grpc.insecure_channel(address, options)
        self.log = log_grpc.LogServiceStub(self.channel)
        self.metadata = metadata_grpc.MetadataServiceStub(self.channel)
        self.topics = topics_grpc.TopicServiceStub(self.channel)
        self.producers = producers_grpc.ProducerServiceStub(self.channel)
        self.groups = groups_grpc.GroupServiceStub(self.channel)


class Cluster:
    """Nodes by address, and who leads what as far as is known."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.nodes = {}
        self.addresses = {}
        self.leaders = {}
        self.coordinators = {}
        self.counts = {}
        self.ids = {}

    def node(self, address):
        if address not in self.nodes:
            self.nodes[address] = Node(address)
        return self.nodes[address]

    def close(self):
        for node in self.nodes.values():
            node.channel.close()
        self.nodes.clear()

    def refresh(self, topic):
        """Asks any node who leads the partitions of a topic; False if none answered."""
        known = list({*self.addresses.values(), *self.bootstrap})
        # One that was cut off goes on answering with what it knew: not always the same one.
        random.shuffle(known)
        for address in known:
            try:
                request = metadata.GetMetadataRequest(topics=[topic])
                answer = self.node(address).metadata.GetMetadata(request, timeout=ATTEMPT_SECONDS)
            except grpc.RpcError:
                continue
            for node in answer.metadata.nodes:
                self.addresses[node.node_id] = f"{node.endpoint.host}:{node.endpoint.port}"
            for found in answer.metadata.topics:
                if self.ids.get(found.name) != found.topic_id:
                    # Another topic of the same name: its epochs begin anew.
                    self.ids[found.name] = found.topic_id
                    for place in [place for place in self.leaders if place[0] == found.name]:
                        del self.leaders[place]
                self.counts[found.name] = len(found.partitions)
                for partition in found.partitions:
                    self.learn(found.name, partition)
            return True
        return False

    def learn(self, topic, partition):
        """A node may know less than another: what is older is not believed."""
        known = self.leaders.get((topic, partition.partition), (-1, None))
        if partition.leader_epoch < known[0]:
            return
        leader = partition.leader_id if partition.HasField("leader_id") else None
        address = self.addresses.get(leader)
        self.leaders[topic, partition.partition] = (partition.leader_epoch, address)

    def partitions(self, topic, within=30.0):
        deadline, backoff = time.monotonic() + within, Backoff()
        while not (self.refresh(topic) and topic in self.counts):
            if time.monotonic() > deadline:
                raise OttlaError("UNKNOWN_TOPIC", f"there is no topic {topic}", True, False)
            backoff.pause(deadline=deadline)
        return self.counts[topic]

    def ask_leader(self, topic, partition, call, within=30.0, again=lambda error: True):
        """Calls the leader of a partition, and again wherever it is, until it answers.

        `call(node, seconds)` is one attempt. `again(error)` says whether one may be
        repeated; errors that a retry cannot mend are raised at once.
        """

        def find():
            leader = self.leaders.get((topic, partition), (-1, None))[1]
            if leader is None and self.refresh(topic):
                leader = self.leaders.get((topic, partition), (-1, None))[1]
            return leader

        def forget():
            epoch = self.leaders.get((topic, partition), (-1, None))[0]
            self.leaders[topic, partition] = (epoch, None)

        return self._follow(find, forget, call, within, again)

    def ask_coordinator(self, group, call, within=30.0, again=lambda error: True):
        """The same for the coordinator of a group. Any node knows who that is."""

        def find():
            if group not in self.coordinators:
                request = groups.FindCoordinatorRequest(group=group)
                found = self.ask_any(
                    lambda node, seconds: node.groups.FindCoordinator(request, timeout=seconds),
                    within=ATTEMPT_SECONDS,
                )
                self.coordinators[group] = f"{found.endpoint.host}:{found.endpoint.port}"
            return self.coordinators[group]

        return self._follow(find, lambda: self.coordinators.pop(group, None), call, within, again)

    def ask_any(self, call, within=30.0):
        """Calls one node after the other until one answers."""
        known = list(dict.fromkeys([*self.addresses.values(), *self.bootstrap]))
        turn = {"next": 0}

        def find():
            turn["next"] += 1
            return known[(turn["next"] - 1) % len(known)]

        return self._follow(find, lambda: None, call, within, lambda error: True)

    def _follow(self, find, forget, call, within, again):
        deadline, backoff, hint = time.monotonic() + within, Backoff(), None
        while True:
            left = deadline - time.monotonic()
            try:
                address = hint or find()
                if address is None:
                    raise OttlaError("LEADER_NOT_AVAILABLE", "nobody leads", True, False)
                return call(self.node(address), max(0.05, min(left, ATTEMPT_SECONDS)))
            except grpc.RpcError as rpc_error:
                error = error_of(rpc_error)
            except OttlaError as found:
                error = found
            forget()
            if not error.retriable or not again(error) or time.monotonic() >= deadline:
                raise error
            # Whoever says who leads is believed once, without a pause.
            followed, hint = hint, error.leader
            if hint is None or followed is not None:
                backoff.pause(error.retry_after, deadline)


def partition_for_key(key, partitions):
    """As Kafka's clients choose it (murmur2), so that all agree where a key lives."""
    mask = 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & mask
        word = (word ^ word >> 24) * 0x5BD1E995 & mask
        hashed = hashed * 0x5BD1E995 & mask ^ word
    for index, byte in enumerate(key[whole:]):
        hashed ^= byte << 8 * index
    if len(key) > whole:
        hashed = hashed * 0x5BD1E995 & mask
    hashed = (hashed ^ hashed >> 13) * 0x5BD1E995 & mask
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions
