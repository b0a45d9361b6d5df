#!/usr/bin/env python3
"""Makes Python of the published .proto files: into the directory given, or ./generated.

The same for any language: `protoc` and its gRPC plug-in over `proto/proto/ottla/v1`.
"""

import pathlib
import sys

from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "proto" / "proto"


def generate(into):
    into = pathlib.Path(into)
    into.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("ottla/v1/*.proto"))
    arguments = [f"-I{PROTOS}", f"--python_out={into}", f"--grpc_python_out={into}", *files]
    if protoc.main(["protoc", *arguments]) != 0:
        sys.exit("protoc failed")


if __name__ == "__main__":
    generate(sys.argv[1] if len(sys.argv) > 1 else "generated")
