"""What is deployed, without deploying it: everything is parsed, rendered and held against
the schemas of those who will read it.

Not its job: running any of it (compose_story, pods_story).
"""

import json
import tomllib

import kubernetes_validate
import yaml

from engine import DEPLOY, Failed, run

CHART = DEPLOY / "helm/ottla"
PLAIN = DEPLOY / "kubernetes/base/ottla.yaml"
HEADER = "# Rendered from deploy/helm/ottla by `deploy/test/run_in_ci.py --write`: change that.\n"

# The oldest release that the chart is for, and the newest that there are schemas of.
RELEASES = ["1.28", "1.37"]

# Values that turn on everything that is off by default.
EVERYTHING = """
image: {tag: v9, pullSecrets: [registry]}
foundCluster: true
replicas: 5
voters: 5
options: {shutdown_timeout_ms: 9000, log_level: "info,ottla_node=debug"}
rackFromLabel: topology.kubernetes.io/zone
storage: {className: local}
antiAffinity: preferred
nodeSelector: {disk: nvme}
tolerations: [{key: ottla, operator: Exists}]
podAnnotations: {team: logs}
priorityClassName: high
monitoring: {podMonitor: true, rules: true, dashboard: true, labels: {release: prometheus}}
"""

# Values that the chart must refuse, and what it says of them.
REFUSED = {
    "replicas: 2": "must not be fewer than voters",
    "clusterId: no spaces": "clusterId",
    "options: {node_id: 7}": "node_id",
    "replica: 3": "replica",
}


def helm(tools, *arguments, values=None, **options):
    extra = [] if values is None else ["--values", "-"]
    return run(tools.helm, *arguments, *extra, input=values, **options)


def template(tools, values=None, **options):
    return helm(tools, "template", "ottla", CHART, values=values, **options)


def documents(text):
    """The objects of a stream by kind and name."""
    found = [document for document in yaml.safe_load_all(text) if document]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def plain_text(tools):
    """The manifests for those without helm."""
    return HEADER + template(tools).stdout


def check_chart(tools):
    helm(tools, "lint", "--strict", CHART)
    default = documents(template(tools).stdout)
    full = documents(template(tools, EVERYTHING).stdout)
    for values, told in REFUSED.items():
        refused = template(tools, values, check=False)
        if refused.returncode == 0 or told not in refused.stderr:
            raise Failed(f"values `{values}` were not refused for {told}: {refused.stderr}")
    for objects in (default, full):
        check_schemas(objects)
    if set(full) - set(default) != {
        ("PodMonitor", "ottla"),
        ("PrometheusRule", "ottla"),
        ("ConfigMap", "ottla-dashboard"),
    }:
        raise Failed(f"with everything on: {sorted(full)}")
    rules = yaml.safe_load((DEPLOY / "alerts/ottla.rules.yml").read_text())
    if full["PrometheusRule", "ottla"]["spec"] != rules:
        raise Failed("the chart's alerts are not those of deploy/alerts")
    dashboard = json.loads(full["ConfigMap", "ottla-dashboard"]["data"]["ottla.json"])
    if dashboard != json.loads((DEPLOY / "grafana/dashboards/ottla.json").read_text()):
        raise Failed("the chart's dashboard is not that of deploy/grafana")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    cargo = tomllib.loads((DEPLOY.parent / "Cargo.toml").read_text())
    if chart["appVersion"] != cargo["workspace"]["package"]["version"]:
        raise Failed(f"the chart is for {chart['appVersion']}, which the workspace is not")
    print(f"helm: the chart renders {len(default)} objects, {len(full)} with everything on")


def check_schemas(objects):
    """Kubernetes' own kinds, and no field that they do not have."""
    own = [one for one in objects.values() if "monitoring.coreos.com" not in one["apiVersion"]]
    for release in RELEASES:
        for one in own:
            try:
                kubernetes_validate.validate(one, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Failed(f"{one['kind']} for {release}: {error}") from error


def check_plain(tools):
    rendered = documents(template(tools).stdout)
    if documents(PLAIN.read_text()) != rendered:
        raise Failed(f"{PLAIN} is not what the chart renders: deploy/test/run_in_ci.py --write")
    built = {}
    for overlay in ("base", "found"):
        folder = DEPLOY / "kubernetes" / overlay
        built[overlay] = documents(run(tools.kubectl, "kustomize", folder).stdout)
        check_schemas(built[overlay])
        strays = [name for name, one in built[overlay].items() if namespace(one) != "ottla"]
        if strays:
            raise Failed(f"outside of the namespace: {strays}")
    different = [name for name in built["base"] if built["base"][name] != built["found"][name]]
    if different != [("ConfigMap", "ottla")]:
        raise Failed(f"a cluster is founded by a ConfigMap alone, not by {different}")
    join = [built[overlay]["ConfigMap", "ottla"]["data"]["OTTLA_FORMAT_JOIN"] for overlay in built]
    if join != ["true", "false"]:
        raise Failed(f"blank disks: base and found say {join}")
    print(f"kustomize: {len(built['base'])} objects, those of the chart in a namespace")


def namespace(one):
    kind, metadata = one["kind"], one["metadata"]
    return metadata["name"] if kind == "Namespace" else metadata.get("namespace")


def check_provisioning():
    """Grafana's files, whose reader is not here: what they name must be there."""
    provisioning = DEPLOY / "grafana/provisioning"
    compose = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    mounts = [mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"]]
    inside = {path: (DEPLOY / "compose" / source).resolve() for source, path in mounts}
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    dashboards = yaml.safe_load((provisioning / "dashboards/ottla.yaml").read_text())
    host = sources["datasources"][0]["url"].split("//")[1].split(":")[0]
    if host not in compose["services"]:
        raise Failed(f"Grafana asks {host}, which is no service of the compose file")
    folder = inside[dashboards["providers"][0]["options"]["path"]]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    if not (folder / home.rsplit("/", 1)[-1]).is_file():
        raise Failed(f"there is no {home}")
    if inside["/etc/grafana/provisioning"] != provisioning:
        raise Failed(f"Grafana is provisioned with {inside['/etc/grafana/provisioning']}")
    for file in folder.glob("*.json"):
        json.loads(file.read_text())
    print("grafana: what its provisioning names is there")


def check_prometheus(tools):
    if tools.promtool is None:
        print("promtool: NOT TRIED, it can be had neither here nor from Debian's packages")
        return
    rules = DEPLOY / "alerts/ottla.rules.yml"
    run(tools.promtool, "check", "rules", rules)
    run(tools.promtool, "test", "rules", DEPLOY / "alerts/ottla.test.yml")
    # Its rules are mounted elsewhere: the syntax is that of the file, the path is not.
    run(tools.promtool, "check", "config", "--syntax-only", DEPLOY / "compose/prometheus.yml")
    print("promtool: alerts, their tests and the configuration are in order")


def check(tools):
    check_chart(tools)
    check_plain(tools)
    check_provisioning()
    check_prometheus(tools)
