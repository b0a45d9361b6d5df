"""The nodes of compose.yaml, as it has them, hurt as containers are hurt.

Its ports are given by the engine, so that a run disturbs nothing that listens already; the
images of Prometheus and Grafana come from a registry, and are left out where there is none.
"""

import pathlib
import shutil
import tempfile

import yaml

from cluster import Cluster
from engine import CLASSIC, DEPLOY, PATIENT, Failed, get, run, wait_until

FILE = DEPLOY / "compose/compose.yaml"
NODES = {1: "node-1", 2: "node-2", 3: "node-3"}


def compose_command():
    """The tool as it is now, as it was before, or None."""
    if run("docker", "compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def resolved(compose, images):
    """The file with its variables filled in, as the tool reads it."""
    shown = run(*compose, "-f", FILE, "config", env={**CLASSIC, **images}).stdout
    return yaml.safe_load(shown)


def any_port(port):
    """The same port of the container, at one of the host's that is free."""
    if isinstance(port, dict):
        return {**port, "published": "0"}
    return f"127.0.0.1::{str(port).rsplit(':', 1)[-1]}"


class Compose:
    """The services of the file under the run's name."""

    def __init__(self, engine, command, directory):
        self.engine, self.command = engine, command
        images = {"OTTLA_IMAGE": engine.image, "OTTLA_PROMETHEUS_IMAGE": engine.prometheus}
        file = resolved(command, images)
        for name, service in file["services"].items():
            if name in NODES.values():
                service["environment"].update(PATIENT)
            service["ports"] = [any_port(port) for port in service.get("ports", [])]
            # The image is there, and must not be built anew.
            service.pop("build", None)
        self.file = pathlib.Path(directory) / "compose.yaml"
        self.file.write_text(yaml.safe_dump(file))

    def __call__(self, *arguments, **options):
        where = ["-p", self.engine.name, "-f", self.file]
        return run(*self.command, *where, *arguments, env=CLASSIC, **options)

    def container(self, service):
        return self.engine.listed("ps", "-aq", f"label=com.docker.compose.service={service}")[0]

    def address(self, service, port):
        """Where the host shows a port of a service."""
        return self.engine.address(self.container(service), port)


def check_container(engine, container):
    """What the file promises of a node's container."""
    found = engine.inspect(container)
    expected = {
        "user": (found["Config"]["User"], "65532:65532"),
        "read-only root": (found["HostConfig"]["ReadonlyRootfs"], True),
        "capabilities dropped": (found["HostConfig"]["CapDrop"], ["ALL"]),
        "signal": (found["Config"]["StopSignal"], "SIGTERM"),
        "seconds to stop": (found["Config"].get("StopTimeout"), 30),
    }
    for what, (seen, wanted) in expected.items():
        if seen != wanted:
            raise Failed(f"{what}: {seen}, expected {wanted}")
    state = lambda: engine.inspect(container)["State"]["Health"]["Status"]
    wait_until("the engine calls the node healthy", lambda: state() == "healthy")


def probe(engine, container, *flags):
    return engine.docker("exec", container, "/usr/bin/ottla", "node", "health", *flags, check=False)


def kill_a_leader(engine, compose, cluster):
    killed = cluster.leader()
    container = compose.container(NODES[killed])
    with cluster.writing() as some_more:
        some_more()
        engine.docker("kill", container)
        some_more()
    engine.docker("start", container)
    cluster.wait_healthy()
    print(f"compose: node {killed} was killed under a writer, who noticed nothing")


def cut_a_leader_off(engine, compose, cluster):
    """It comes back with another address under the same name, as pods do."""
    cut = cluster.leader()
    container = compose.container(NODES[cut])
    address = lambda: engine.inspect(container)["NetworkSettings"]["Networks"][cluster.network]
    before = address()["IPAddress"]
    with cluster.writing() as some_more:
        some_more()
        engine.docker("network", "disconnect", cluster.network, container)
        some_more()
    told = cluster.ottla("cluster", "health", check=False)
    if told.returncode == 0 or f"unreachable nodes: {cut}" not in told.stdout:
        raise Failed(f"node {cut} is cut off, and the cluster says: {told.stdout}{told.stderr}")
    # Nobody should restart it for that.
    if probe(engine, container, "--live").returncode != 0:
        raise Failed(f"node {cut} is cut off, lives, and says that it does not")
    # The address that is free goes to somebody else meanwhile.
    squatter = cluster.command("cluster", "health", "--watch")
    squatter = engine.docker("run", "--detach", *squatter[2:]).stdout.strip()
    engine.docker("network", "connect", "--alias", NODES[cut], cluster.network, container)
    if address()["IPAddress"] == before:
        raise Failed(f"node {cut} came back at the address {before} that another has")
    cluster.wait_healthy()
    engine.docker("rm", "-fv", squatter)
    print(f"compose: node {cut} was cut off under a writer, and came back at another address")


def stop_as_planned(engine, compose, cluster):
    leader = cluster.leader()
    container = compose.container(NODES[leader])
    with cluster.writing() as some_more:
        some_more()
        compose("stop", NODES[leader])
        some_more()
    code, logs = engine.exit_code(container), engine.logs(container)
    if code != 0 or "node stopped cleanly" not in logs:
        raise Failed(f"node {leader} was stopped: exit code {code}\n{logs[-2000:]}")
    compose("start", NODES[leader])
    cluster.wait_healthy()
    print(f"compose: node {leader} was stopped as planned, cleanly")


def lose_a_volume(engine, compose, cluster):
    """A voter that forgot everything is formatted by the file, and refused all the same."""
    lost, (service, formatter) = 3, ("node-3", "format-3")
    compose("rm", "-fsv", service, formatter)
    engine.docker("volume", "rm", f"{engine.name}_{service}")
    compose("up", "-d", "--no-build", service)
    container = compose.container(service)
    wait_until(
        "a blank disk of a known voter is refused",
        lambda: "BLANK_DISK_OF_KNOWN_VOTER" in engine.logs(container),
    )
    compose("stop", service)
    cluster.ottla("cluster", "replace-disk", str(lost))
    compose("start", service)
    cluster.wait_healthy()
    print(f"compose: node {lost} lost its volume, was refused, and replaced it")


def watched(compose):
    """Prometheus with our configuration sees the nodes, and knows our alerts."""
    address = compose.address("prometheus", 9090)

    def sees_all():
        status, text = get(address, "/api/v1/query?query=sum(up%7Bjob%3D%22ottla%22%7D)")
        return status == 200 and f'"{len(NODES)}"]' in text

    wait_until("Prometheus sees every node", sees_all)
    status, rules = get(address, "/api/v1/rules")
    if status != 200 or "OttlaNodeDown" not in rules:
        raise Failed(f"Prometheus does not know our alerts: {status} {rules[:500]}")
    print("compose: Prometheus scrapes every node and has the alerts")


def start(engine, compose, prometheus):
    """The nodes, and Prometheus in the place of its image if there is one on this machine."""
    extra = []
    if prometheus is None:
        print("compose: Prometheus NOT TRIED, there is none here")
    else:
        engine.build_prometheus(prometheus)
        extra = ["prometheus"]
    compose("up", "-d", "--no-build", *NODES.values(), *extra)
    bootstrap = ",".join(f"{name}:740{node}" for node, name in NODES.items())
    cluster = Cluster(engine, f"{engine.name}_default", bootstrap)
    cluster.wait_healthy()
    for name in NODES.values():
        check_container(engine, compose.container(name))
        answer = get(compose.address(name, 7501), "/readyz")
        if answer[0] != 200:
            raise Failed(f"{name}: {answer}, expected 200")
    return cluster


def story(engine, command, prometheus):
    with tempfile.TemporaryDirectory() as directory:
        compose = Compose(engine, command, directory)
        cluster = start(engine, compose, prometheus)
        cluster.create_topic()
        kill_a_leader(engine, compose, cluster)
        cut_a_leader_off(engine, compose, cluster)
        stop_as_planned(engine, compose, cluster)
        lose_a_volume(engine, compose, cluster)
        if prometheus is not None:
            watched(compose)
        cluster.check_everything_is_there()
        print(f"compose: all {cluster.acknowledged} acknowledged records are there, once, in order")
        compose("down", "-v", "-t", "30")
    print("compose: Grafana NOT TRIED, its image comes from a registry")
