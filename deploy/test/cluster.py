"""A cluster of containers as its clients see it: they are containers on the same network.

Not its job: starting nodes (compose_story, pods_story).
"""

import contextlib
import json
import subprocess

from engine import LABEL, PATIENCE, Failed, run, wait_until

TOPIC, PARTITIONS, KEYS = "orders", 3, 9

# Records that are written at once: before something is done to the cluster, and after it.
SOME = 300

# A writer that gives up after PATIENCE is left this many seconds to say why.
LAST_WORDS = 60


class Cluster:
    """Runs `ottla` in containers of their own, and remembers what was acknowledged."""

    def __init__(self, engine, network, bootstrap):
        self.engine, self.network, self.bootstrap = engine, network, bootstrap
        self.acknowledged = 0

    def command(self, *arguments):
        options = ["--rm", "-i", "--read-only", "--network", self.network]
        marked = ["--label", f"{LABEL}={self.engine.name}"]
        known = ["-e", f"OTTLA_BOOTSTRAP={self.bootstrap}"]
        return ["docker", "run", *options, *marked, *known, self.engine.image, *arguments]

    def ottla(self, *arguments, **options):
        return run(*self.command(*arguments, "--timeout", f"{PATIENCE}s"), **options)

    def ask(self, *arguments):
        return json.loads(self.ottla(*arguments, "--format", "json").stdout)

    def wait_healthy(self):
        """One question after the other: --watch gives each a second, which a busy machine
        may not have."""
        told = []

        def healthy():
            asked = self.ottla("cluster", "health", check=False)
            told[:] = [asked.stdout + asked.stderr]
            return asked.returncode == 0

        wait_until("the cluster is healthy", healthy, told)

    def create_topic(self):
        shape = ["--partitions", PARTITIONS, "--replication-factor", 3]
        self.ottla("topic", "create", TOPIC, *map(str, shape))

    def leader(self, partition=0):
        described = self.ask("topic", "describe", TOPIC)
        return described["partitions"][partition]["leader"]

    @contextlib.contextmanager
    def writing(self):
        """Gives a function that writes some more with acks=all. It ends well only if every
        line was acknowledged, whatever was done to the cluster meanwhile."""
        write = ["produce", TOPIC, "--acks", "all", "--key-separator", ":"]
        command = self.command(*write, "--timeout", f"{PATIENCE}s")
        pipe, sent = subprocess.PIPE, [self.acknowledged]
        writer = subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True)

        def some_more():
            writer.stdin.write(lines(sent[0], sent[0] + SOME))
            writer.stdin.flush()
            sent[0] += SOME

        try:
            yield some_more
            _, told = writer.communicate(timeout=PATIENCE + LAST_WORDS)
        finally:
            writer.kill()
            writer.wait()
        if writer.returncode != 0:
            raise Failed(f"not every record was acknowledged: {told}")
        self.acknowledged = sent[0]

    def check_everything_is_there(self):
        """Once each, and in the order of its key."""
        read = ["consume", TOPIC, "--from", "start", "--until", "end", "--output", "%k:%v\\n"]
        found = self.ottla(*read).stdout.splitlines()
        numbers = [int(line.partition(":")[2]) for line in found]
        if sorted(numbers) != list(range(self.acknowledged)):
            lost = sorted(set(range(self.acknowledged)) - set(numbers))
            count = f"{len(numbers)} records, {self.acknowledged} were acknowledged"
            raise Failed(f"{count}; lost: {lost[:10]}")
        for key in range(KEYS):
            own = [number for number in numbers if number % KEYS == key]
            if own != sorted(own):
                raise Failed(f"the records of key k{key} are out of order")


def lines(first, end):
    return "".join(f"k{number % KEYS}:{number}\n" for number in range(first, end))
