#!/usr/bin/env python3
"""A Kafka client must read our segments: every batch and every record of what
`examples/segment_for_kafka.rs` writes, as kafka-python sees it.

Runs itself in a virtual environment in the target directory, made at first use.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

PACKAGES = ["kafka-python==3.0.12", "python-snappy==0.7.3", "lz4==4.4.5", "zstandard==0.25.0"]
ROOT = pathlib.Path(__file__).resolve().parents[2]


def reexec_in_venv():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    venv = target / "kafka-python-venv"
    python = venv / "bin" / "python"
    ready = venv / "ready"
    if not ready.exists() or ready.read_text() != " ".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        ready.write_text(" ".join(PACKAGES))
    os.execv(python, [python, __file__, "--in-venv"])


def found(path):
    from kafka.record import MemoryRecords

    records = MemoryRecords(path.read_bytes())
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc(), f"CRC of the batch at {batch.base_offset}"
        yield {
            "base_offset": batch.base_offset,
            "next_offset": batch.next_offset,
            "leader_epoch": batch.leader_epoch,
            "codec": batch.compression_type,
            "timestamp_type": batch.timestamp_type,
            "transactional": bool(batch.is_transactional),
            "control": bool(batch.is_control_batch),
            "producer_id": batch.producer_id,
            "producer_epoch": batch.producer_epoch,
            "records": [
                {
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                    "key": None if record.key is None else bytes(record.key).hex(),
                    "value": None if record.value is None else bytes(record.value).hex(),
                    "headers": [
                        [name.encode().hex(), None if value is None else bytes(value).hex()]
                        for name, value in record.headers
                    ],
                }
                for record in batch
            ],
        }
    assert records.valid_bytes() == path.stat().st_size, "bytes behind the last batch"


def main():
    with tempfile.TemporaryDirectory() as directory:
        command = "cargo run --quiet --locked -p ottla-commitlog --example segment_for_kafka --"
        output = subprocess.run(
            [*command.split(), directory], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        expected = json.loads(output.stdout)
        got = list(found(pathlib.Path(directory) / "follower" / f"{0:020}.log"))
    for want, have in zip(expected, got):
        if want != have:
            sys.exit(f"batch at {want['base_offset']} differs:\nwritten {want}\nread    {have}")
    assert len(expected) == len(got) == 13, f"{len(expected)} batches written, {len(got)} read"
    assert {batch["codec"] for batch in got} == {0, 1, 2, 3, 4}, "every codec was used"
    print(f"kafka-python read {len(got)} batches, {sum(len(b['records']) for b in got)} records")


if __name__ == "__main__":
    main() if "--in-venv" in sys.argv else reexec_in_venv()
