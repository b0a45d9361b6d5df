"""NATS JetStream: three servers, streams of three replicas, file storage.

A partition is a stream, each with a Raft group and a leader of its own. A stream
acknowledges when a majority has written the record; the server of Debian syncs files every
two minutes and cannot be told otherwise, so that it stands beside durability=memory only.
Records are published without waiting for earlier ones, over NATS's own client for Rust.
"""

import json
import shutil
import subprocess
import urllib.error
import urllib.request

from servers import build_load, free_ports, load, stop, until


class Nats:
    name = "nats"
    durabilities = ("memory",)
    why = "nats-server of Debian does not sync before it acknowledges: --durability memory"

    def __init__(self, args):
        self.args = args
        self.program = None

    def missing(self):
        return None if shutil.which("nats-server") else "nats-server is not installed"

    def version(self):
        said = subprocess.run(["nats-server", "--version"], check=True, stdout=subprocess.PIPE, text=True)
        return said.stdout.strip()

    def run(self, folder):
        self.program = self.program or build_load("nats-load")
        ports = free_ports(9)
        clients, routes, monitors = ports[:3], ports[3:6], ports[6:]
        log = open(folder / "log", "w", encoding="utf-8")
        servers = []
        try:
            for index in range(3):
                config = folder / f"nats-{index}.conf"
                config.write_text(configuration(index, clients, routes, monitors, folder))
                servers.append(subprocess.Popen(["nats-server", "-c", config], stdout=log, stderr=log))
            until("JetStream leader", lambda: all(has_leader(port, 3) for port in monitors))
            addresses = [f"nats://127.0.0.1:{port}" for port in clients]
            return load(self.program, addresses, [one.pid for one in servers], self.args)
        finally:
            stop(servers)
            log.close()


def configuration(index, clients, routes, monitors, folder):
    others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    return f"""
server_name: bench-{index}
listen: 127.0.0.1:{clients[index]}
http: 127.0.0.1:{monitors[index]}
jetstream {{ store_dir: "{folder}/nats-{index}" }}
cluster {{ name: bench, listen: 127.0.0.1:{routes[index]}, routes: [{others}] }}
"""


def has_leader(port, servers):
    """Whether a server knows the leader of JetStream's metadata, and all of its peers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/jsz", timeout=1) as answer:
            meta = json.load(answer).get("meta_cluster") or {}
    except (urllib.error.URLError, OSError):
        return False
    return bool(meta.get("leader")) and meta.get("cluster_size") == servers
