"""`python3 -m setup`: whatever is missing to run Intertie from this tree, and nothing else.

`python3 -m setup clients` adds what only clients in further languages need.
"""

import fcntl
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setup import debian, guest_image, venv
from setup.facts import probe, probe_kernel
from setup.preflight import problems

_TREE = Path(__file__).resolve().parent.parent


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = probe(_TREE)
    if found := problems(facts):
        return _refuse(found)
    try:
        with _alone():
            _packages(["packages", *(f"packages-{each}" for each in sys.argv[1:])])
            if facts.kernel_lacks is None and (lacks := probe_kernel()):
                print("setup: only now that iproute2 is there, the kernel could be asked.")
                return _refuse([f"this kernel lacks {', '.join(lacks)}. Run Debian's own kernel."])
            _environment()
            _guest_image()
    except (debian.CommandFailed, guest_image.BuildFailed) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; run it again to complete it", file=sys.stderr)
        return 130
    return 0


def _refuse(found: list[str]) -> int:
    print("setup: this machine cannot run Intertie's testbed:", file=sys.stderr)
    for problem in found:
        print(f"  - {problem}", file=sys.stderr)
    return 1


def _packages(lists: list[str]) -> None:
    texts = [(_TREE / f"setup/{each}.txt").read_text() for each in lists]
    missing = debian.missing_packages([p for each in texts for p in debian.wanted_packages(each)])
    if missing:
        with _step(f"installing {len(missing)} Debian packages"):
            debian.update_lists()
            debian.install(missing)
    if not debian.has_emulator_user():
        debian.add_emulator_user()


def _environment() -> None:
    if not venv.is_current(_TREE):
        with _step("making the virtual environment in .venv"):
            venv.make(_TREE)


def _guest_image() -> None:
    image = guest_image.image_path()
    if not guest_image.is_current(image):
        with _step(f"checking and building the guest image {image}"):
            if not guest_image.lists_present():
                debian.update_lists()
            guest_image.build_if_needed(image)


@contextmanager
def _step(text: str) -> Iterator[None]:
    print(f"setup: {text} ...", flush=True)
    begin = time.monotonic()
    yield
    print(f"setup: done in {time.monotonic() - begin:.0f} s", flush=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Two set-ups of one tree take turns."""
    with (_TREE / "setup/packages.txt").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
