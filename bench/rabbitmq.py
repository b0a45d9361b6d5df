"""RabbitMQ: three nodes, quorum queues or streams of three replicas.

A quorum queue confirms when a majority has synced the record (the write-ahead log of its
Raft is synced with fdatasync), so that it stands beside durability=disk; a stream confirms
when a majority has written it, and leaves syncing to the system: durability=memory. Both
over AMQP 0.9.1 with publisher confirms. RabbitMQ's own protocol for streams, and its own
load generators, are not used: the one's client and the others are not to be had from the
registries that this project builds from without a Java build of their own.
"""

import os
import shutil
import subprocess
from pathlib import Path

from servers import build_load, free_ports, load, stop, until

# Debian's own command changes the user; this one is what it runs.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONTROL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")


class RabbitMq:
    kind = None

    def __init__(self, args):
        self.args = args
        self.program = None

    def missing(self):
        if not SERVER.exists():
            return "rabbitmq-server is not installed"
        return None if shutil.which("epmd") else "Erlang's epmd is not installed"

    def version(self):
        # rabbitmqctl would leave a daemon of Erlang's behind.
        ask = ["dpkg-query", "--show", "--showformat", "${Version}", "rabbitmq-server"]
        said = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True)
        return f"RabbitMQ {said.stdout}"

    def run(self, folder):
        self.program = self.program or build_load("rabbitmq-load")
        ports = free_ports(7)
        log = open(folder / "log", "w", encoding="utf-8")
        mapper = subprocess.Popen(["epmd", "-port", str(ports[6]), "-address", "127.0.0.1"])
        servers = []
        try:
            places = [environment(index, ports, folder) for index in range(3)]
            for place in places:
                server = subprocess.Popen([SERVER], env=place, stdout=log, stderr=log)
                servers.append(server)
            until("three RabbitMQ nodes", lambda: are_online(places[0], servers))
            addresses = [f"127.0.0.1:{port}" for port in ports[:3]]
            pids = [int(Path(place["RABBITMQ_PID_FILE"]).read_text()) for place in places]
            return load(self.program, addresses, pids, self.args, ["--kind", self.kind])
        finally:
            stop(servers)
            stop([mapper])
            log.close()


class Quorum(RabbitMq):
    name = "rabbitmq-quorum"
    kind = "quorum"
    durabilities = ("disk",)
    why = "quorum queues sync before they confirm: --durability disk"


class Stream(RabbitMq):
    name = "rabbitmq-stream"
    kind = "stream"
    durabilities = ("memory",)
    why = "streams do not sync before they confirm: --durability memory"


def environment(index, ports, folder):
    home = folder / "home"
    home.mkdir(exist_ok=True)
    config = folder / "rabbitmq.conf"
    nodes = "\n".join(
        f"cluster_formation.classic_config.nodes.{n + 1} = bench{n}@localhost" for n in range(3)
    )
    config.write_text(f"cluster_formation.peer_discovery_backend = classic_config\n{nodes}\n")
    plugins = folder / "enabled_plugins"
    plugins.write_text("[].\n")
    place = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return place | {
        # Where Erlang keeps what lets nodes talk to each other.
        "HOME": str(home),
        "ERL_EPMD_PORT": str(ports[6]),
        "RABBITMQ_NODENAME": f"bench{index}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(ports[index]),
        "RABBITMQ_DIST_PORT": str(ports[3 + index]),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(folder / f"rabbit-{index}"),
        "RABBITMQ_LOG_BASE": str(folder / f"rabbit-log-{index}"),
        "RABBITMQ_PID_FILE": str(folder / f"rabbit-{index}.pid"),
    }


def are_online(place, servers):
    """Whether the first node knows that all of them run."""
    if any(server.poll() is not None for server in servers):
        raise SystemExit("bench/run: a RabbitMQ node has ended")
    ask = [CONTROL, "-q", "await_online_nodes", str(len(servers)), "--timeout", "10"]
    return subprocess.run(ask, env=place, capture_output=True, check=False).returncode == 0
