"""Generates services/api from protos/: `python -m setup.protos [OUTPUT]`.

The result is checked in; tests/contract/test_generated_code.py generates it again and compares.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distribution as distribution_of
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "services" / "api"


def generate(output: Path) -> None:
    """Writes messages, services and their type stubs for every proto below `output`."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    scripts = Path(sys.executable).parent
    # A process of its own: protoc's native code and OR-Tools' cannot share one.
    argv = [
        f"--proto_path={PROTOS}",
        f"--proto_path={_site_packages('googleapis-common-protos')}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sources,
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *argv], check=True)
    for path in output.rglob("*_pb2_grpc.py*"):
        if not re.search(r"^service ", _source_of(path, output).read_text(), re.MULTILINE):
            path.unlink()


def _site_packages(distribution: str) -> Path:
    """The folder that the distribution's `google/api/*.proto` lie in."""
    return Path(str(distribution_of(distribution).locate_file("")))


def _source_of(generated: Path, output: Path) -> Path:
    stem = generated.name.split("_pb2_grpc")[0]
    return PROTOS / generated.parent.relative_to(output) / f"{stem}.proto"


def main() -> None:
    """Replaces the generated tree whole, so that nothing of a removed proto stays."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else GENERATED
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        target = output / "intertie" / "api"
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(Path(scratch) / "intertie" / "api", target)
        (target / "py.typed").touch()


if __name__ == "__main__":
    main()
