#!/usr/bin/env python3
"""Shows that what is in deploy/ works: everything is parsed and rendered; where there is a
Docker engine the image is built, the compose file's nodes and the pods of the Kubernetes
manifests are started, hurt and read back.

    deploy/test/run_in_ci.py            everything that can be tried here
    deploy/test/run_in_ci.py --write    renders deploy/kubernetes/base anew

Runs itself in a virtual environment in the target directory, made at first use (needs
PyPI). Builds `ottla` unless OTTLA names a binary. Whatever happens, it removes what it made.
"""

import os
import pathlib
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REQUIREMENTS = HERE / "requirements.txt"

IN_VENV = "--in-venv"

# Everything together, in seconds: on a machine that is not busy it takes a minute and a half.
AT_MOST = 1200


def reexec_in_venv():
    venv = TARGET / "deploy-test-venv"
    python, ready = venv / "bin" / "python", venv / "ready"
    if not ready.exists() or ready.read_text() != REQUIREMENTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]
        subprocess.run(install, check=True)
        ready.write_text(REQUIREMENTS.read_text())
    os.execv(python, [python, __file__, IN_VENV, *sys.argv[1:]])


def binary():
    if "OTTLA" in os.environ:
        return os.environ["OTTLA"]
    subprocess.run(["cargo", "build", "--quiet", "--locked", "-p", "ottla"], cwd=ROOT, check=True)
    return str(TARGET / "debug" / "ottla")


def try_containers(tools):
    import compose_story
    import engine
    import pods_story

    missing = engine.is_there()
    if missing is not None:
        print(f"containers: NOT TRIED, {missing}; the image was not built, nothing was started")
        return
    with engine.Engine(binary()) as own:
        own.build()
        compose = compose_story.compose_command()
        if compose is None:
            print("compose: NOT TRIED, there is neither `docker compose` nor `docker-compose`")
        else:
            compose_story.story(own, compose, tools.prometheus)
        pods_story.story(own, tools)


def main():
    import rendering
    from engine import Failed
    from tools import Tools

    # However it is ended, it removes what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done within {AT_MOST} s"))
    signal.alarm(AT_MOST)
    tools = Tools(TARGET)
    if "--write" in sys.argv:
        rendering.PLAIN.write_text(rendering.plain_text(tools))
        return
    try:
        rendering.check(tools)
        try_containers(tools)
    except Failed as failed:
        sys.exit(f"deploy: {failed}")


if __name__ == "__main__":
    main() if IN_VENV in sys.argv else reexec_in_venv()
