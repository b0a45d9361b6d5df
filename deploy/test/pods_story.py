"""The pods of the Kubernetes manifests, as containers: what a kubelet and the StatefulSet's
controller would do with the manifests is done with the engine, as far as it matters here.

That is: variables and what they are made of, the init container, security contexts, names
in the DNS, probes, preStop, the time to stop, updates one pod at a time, scaling. Not tried:
scheduling, volumes of a provider (fsGroup), endpoints of Services, evictions.
"""

import itertools
import re

from cluster import Cluster
from engine import DEPLOY, LABEL, PATIENT, Failed, get, run, wait_until
from rendering import documents

ORDINAL = "metadata.labels['apps.kubernetes.io/pod-index']"


class Pods:
    """The pods of one StatefulSet, by ordinal."""

    def __init__(self, engine, objects):
        self.engine, self.objects = engine, objects
        self.set = objects["StatefulSet", "ottla"]
        self.spec = self.set["spec"]["template"]["spec"]
        self.main = self.spec["containers"][0]
        self.namespace = self.set["metadata"]["namespace"]
        self.network = engine.create_network("pods")
        self.claims, self.volumes = {}, itertools.count()

    def ordinals(self):
        first = self.set["spec"]["ordinals"]["start"]
        return list(range(first, first + self.set["spec"]["replicas"]))

    def name(self, ordinal):
        return f"{self.set['metadata']['name']}-{ordinal}"

    def container(self, ordinal):
        return f"{self.engine.name}-{self.name(ordinal)}"

    def host(self, ordinal):
        service = self.set["spec"]["serviceName"]
        if ("Service", service) not in self.objects:
            raise Failed(f"there is no Service {service} to give pods their names")
        return f"{self.name(ordinal)}.{service}.{self.namespace}.svc.cluster.local"

    def variables(self, container, ordinal):
        """As a kubelet makes them: $(NAME) is what was said of NAME before."""
        fields = {"metadata.namespace": self.namespace, ORDINAL: str(ordinal)}
        found = dict(PATIENT)
        for source in container["envFrom"]:
            found.update(self.objects["ConfigMap", source["configMapRef"]["name"]]["data"])
        for variable in container["env"]:
            if "valueFrom" in variable:
                value = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            else:
                known = lambda match: found.get(match[1], match[0])
                value = re.sub(r"\$\(([A-Z_]+)\)", known, variable["value"])
            found[variable["name"]] = value
        return found

    def run(self, container, ordinal, *options, more=(), check=True):
        """Starts one container of a pod with what its security contexts and volumes say."""
        context, pod = container["securityContext"], self.spec["securityContext"]
        settings = [f"--user={pod['runAsUser']}:{pod['runAsGroup']}"]
        settings += [f"--cap-drop={one}" for one in context["capabilities"]["drop"]]
        settings += ["--read-only"] if context["readOnlyRootFilesystem"] else []
        if not context["allowPrivilegeEscalation"]:
            settings.append("--security-opt=no-new-privileges")
        for variable, value in self.variables(container, ordinal).items():
            settings.append(f"--env={variable}={value}")
        for mount in container["volumeMounts"]:
            volume = self.claim(mount["name"], ordinal)
            settings.append(f"--volume={volume}:{mount['mountPath']}")
        marked = ["--label", f"{LABEL}={self.engine.name}", "--network", self.network]
        image = [self.engine.image, *container["args"], *more]
        return self.engine.docker("run", *marked, *settings, *options, *image, check=check)

    def claim(self, name, ordinal):
        names = [one["metadata"]["name"] for one in self.set["spec"]["volumeClaimTemplates"]]
        if name not in names:
            raise Failed(f"{name} is mounted, and claimed are {names}")
        if (name, ordinal) not in self.claims:
            # Counted: another one each time a disk is lost.
            number = next(self.volumes)
            whole = f"{name}-{self.name(ordinal)}-{number}"
            self.claims[name, ordinal] = self.engine.create_volume(whole)
        return self.claims[name, ordinal]

    def start(self, ordinal):
        for container in self.spec["initContainers"]:
            self.run(container, ordinal, "--rm")
        alias = ["--network-alias", self.host(ordinal), "--hostname", self.name(ordinal)]
        shown = [f"--publish=127.0.0.1::{port['containerPort']}" for port in self.main["ports"]]
        self.run(self.main, ordinal, "--detach", "--name", self.container(ordinal), *alias, *shown)

    def lose(self, ordinal):
        """The machine is gone, and its disk with it: the next claim is blank."""
        self.engine.docker("rm", "-fv", self.container(ordinal))
        self.claims = {key: one for key, one in self.claims.items() if key[1] != ordinal}

    def probe(self, kind, ordinal):
        asked = self.main[kind]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self.main["ports"]}
        address = self.engine.address(self.container(ordinal), ports[asked["port"]])
        return get(address, asked["path"])

    def wait_ready(self, ordinal):
        ready = lambda: self.probe("readinessProbe", ordinal)[0] == 200
        wait_until(f"{self.name(ordinal)} is ready", ready)
        for kind in ("startupProbe", "livenessProbe"):
            if self.probe(kind, ordinal)[0] != 200:
                raise Failed(f"{kind}: {self.probe(kind, ordinal)}, expected 200")

    def delete(self, ordinal):
        """preStop, then SIGTERM, within the time there is. Its volume stays."""
        container = self.container(ordinal)
        hook = self.main["lifecycle"]["preStop"]["exec"]["command"]
        grace = self.spec["terminationGracePeriodSeconds"]
        self.engine.docker("exec", container, *hook, timeout=grace)
        self.engine.docker("stop", "--time", str(grace), container)
        code = self.engine.exit_code(container)
        if code != 0:
            raise Failed(f"{container}: exit code {code}\n{self.engine.logs(container)[-2000:]}")
        self.engine.docker("rm", container)


def rendered(tools, overlay):
    folder = DEPLOY / "kubernetes" / overlay
    return documents(run(tools.kubectl, "kustomize", folder).stdout)


def update_one_at_a_time(pods, cluster):
    """As the controller does: from the last to the first, each ready before the next."""
    with cluster.writing() as some_more:
        for ordinal in reversed(pods.ordinals()):
            some_more()
            pods.delete(ordinal)
            some_more()
            pods.start(ordinal)
            pods.wait_ready(ordinal)
        some_more()
    print("pods: all were replaced, one at a time, under a writer, who noticed nothing")


def scale_up(pods, cluster):
    """One that comes later is formatted because a majority of the voters answers."""
    newcomer = pods.ordinals()[-1] + 1
    pods.start(newcomer)
    pods.wait_ready(newcomer)
    nodes = [node["node"] for node in cluster.ask("cluster", "info")["nodes"]]
    if newcomer not in nodes:
        raise Failed(f"node {newcomer} is ready, and the cluster has {nodes}")
    print(f"pods: {pods.name(newcomer)} joined the cluster that was there")


def lose_a_majority(pods):
    """What is left is one voter with its log: two blank ones must not found a cluster
    beside it."""
    first, *others = pods.ordinals()
    for ordinal in others:
        pods.lose(ordinal)
    for ordinal in others:
        formatter = pods.spec["initContainers"][0]
        done = pods.run(formatter, ordinal, "--rm", more=["--timeout", "5s"], check=False)
        if done.returncode != 1 or "was not formatted" not in done.stderr:
            raise Failed(f"a blank disk was formatted: {done.stdout}{done.stderr}")
    print(f"pods: with two of three disks lost no blank one is formatted beside node {first}")


def story(engine, tools):
    pods = Pods(engine, rendered(tools, "found"))
    for ordinal in pods.ordinals():
        pods.start(ordinal)
    bootstrap = ",".join(f"{pods.host(ordinal)}:7401" for ordinal in pods.ordinals())
    cluster = Cluster(engine, pods.network, bootstrap)
    cluster.wait_healthy()
    for ordinal in pods.ordinals():
        pods.wait_ready(ordinal)
    cluster.create_topic()
    # From here on it is there: nothing but the ConfigMap differs.
    pods.objects = rendered(tools, "base")
    update_one_at_a_time(pods, cluster)
    scale_up(pods, cluster)
    cluster.check_everything_is_there()
    print(f"pods: all {cluster.acknowledged} acknowledged records are there, once, in order")
    lose_a_majority(pods)
