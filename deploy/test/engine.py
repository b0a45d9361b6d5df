"""A Docker engine for one run of the tests: images, containers, networks and volumes that
bear the run's name, and are gone when it ends.

Not its job: what a cluster is asked.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
DEPLOY = HERE.parent

# A state is waited for so long, in seconds: many times what it takes on a busy machine.
PATIENCE = 180

# Nodes of the tests are slower to think that another is gone: a machine that gives one of
# them no processor for a second must not change the verdict.
PATIENT = {
    "OTTLA_RAFT_HEARTBEAT_MS": "200",
    "OTTLA_ELECTION_TIMEOUT_MIN_MS": "1500",
    "OTTLA_ELECTION_TIMEOUT_MAX_MS": "3000",
    "OTTLA_SESSION_TIMEOUT_MS": "6000",
}

# What compose marks its own with; the rest of a run is marked in the same way.
LABEL = "com.docker.compose.project"

# No registry is asked for a front end or anything else.
CLASSIC = {**os.environ, "DOCKER_BUILDKIT": "0"}


class Failed(Exception):
    """What was expected, and what was found."""


def run(*command, check=True, **options):
    """A command's outcome; if it fails, what it said is in the error."""
    options = {"text": True, "capture_output": True, "timeout": PATIENCE, **options}
    done = subprocess.run([str(part) for part in command], **options)
    if check and done.returncode != 0:
        shown = " ".join(map(str, command))
        raise Failed(f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_until(what, look, told=()):
    """Until `look` says so. What it has `told` on the way is said if that is never."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {PATIENCE} s; {' '.join(told)}")
        time.sleep(0.2)


def get(address, path):
    """Status and text of an answer over HTTP; 0 if there was none."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def is_there():
    """Why there is no engine to use here; None if there is one."""
    if shutil.which("docker") is None:
        return "there is no `docker` command"
    if run("docker", "version", check=False).returncode != 0:
        return "no Docker engine answers"
    if os.uname().sysname != "Linux":
        return "containers for a binary of this machine need Linux"
    return None


class Engine:
    """Everything of one run."""

    def __init__(self, ottla):
        self.name = f"ottla-test-{os.getpid()}"
        self.image, self.base = f"{self.name}/ottla", f"{self.name}/base"
        self.prometheus = f"{self.name}/prometheus"
        self.ottla = ottla

    def __enter__(self):
        return self

    def __exit__(self, *_):
        containers = self.listed("ps", "-aq")
        if containers:
            run("docker", "rm", "-fv", *containers, check=False)
        for kind in ("network", "volume"):
            for name in self.listed(kind, "ls", "-q"):
                run("docker", kind, "rm", name, check=False)
        for image in (self.image, self.base, self.prometheus):
            run("docker", "rmi", "-f", image, check=False)

    def listed(self, *what_and_filters):
        """Ids of what this run made: `ps -aq`, `volume ls -q`, and further filters."""
        what = [word for word in what_and_filters if not word.startswith("label=")]
        filters = set(what_and_filters) - set(what) | {f"label={LABEL}={self.name}"}
        return run("docker", *what, *(f"--filter={one}" for one in filters)).stdout.split()

    def build(self):
        """The image of deploy/docker/Dockerfile around a binary that is there, on a base of
        this machine's C library: neither the builder nor the real base is here."""
        import_image(self.base, {library: library for library in libraries(self.ottla)})
        with tempfile.TemporaryDirectory() as context:
            context = pathlib.Path(context)
            (context / "usr/bin").mkdir(parents=True)
            (context / "var/lib/ottla").mkdir(parents=True)
            # As the builder does: what debuggers want is most of the file.
            run("strip", "--strip-debug", "-o", context / "usr/bin/ottla", self.ottla)
            dockerfile = DEPLOY / "docker/Dockerfile"
            target = ["--target", "prebuilt", "--build-arg", f"BASE={self.base}"]
            run("docker", "build", *target, "-t", self.image, "-f", dockerfile, context, env=CLASSIC)

    def build_prometheus(self, program):
        """An image that is started as the official one is, of a program of this machine."""
        files = {library: library for library in libraries(program)}
        entry = 'ENTRYPOINT ["/bin/prometheus"]'
        import_image(self.prometheus, {**files, program: "/bin/prometheus"}, [entry])

    def docker(self, *arguments, **options):
        return run("docker", *arguments, **options)

    def inspect(self, container):
        return json.loads(self.docker("inspect", container).stdout)[0]

    def create_network(self, name):
        """A network of this run; its whole name."""
        name = f"{self.name}_{name}"
        self.docker("network", "create", "--label", f"{LABEL}={self.name}", name)
        return name

    def create_volume(self, name):
        name = f"{self.name}_{name}"
        self.docker("volume", "create", "--label", f"{LABEL}={self.name}", name)
        return name

    def logs(self, container):
        done = self.docker("logs", container, check=False)
        return done.stdout + done.stderr

    def address(self, container, port):
        """Where the host shows a port of a container."""
        return self.docker("port", container, str(port)).stdout.split()[0]

    def exit_code(self, container):
        """Waits for its end."""
        return int(self.docker("wait", container).stdout)


def libraries(program):
    """Files that a program needs to be started, the loader among them."""
    words = run("ldd", program, check=False).stdout.split()
    return [word for word in words if word.startswith("/")]


def import_image(image, files, changes=()):
    """An image of files of this machine, at the paths given or their own, and no other."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
        with tarfile.open(packed.name, "w") as tar:
            for file, path in files.items():
                tar.add(os.path.realpath(file), arcname=path)
        options = [f"--change={change}" for change in changes]
        run("docker", "import", *options, packed.name, image)
