"""Debian packages: which are missing, and their installation without starting any service."""

import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLICY = Path("/usr/sbin/policy-rc.d")
_ASIDE = Path("/usr/sbin/policy-rc.d.before-intertie")
_DENY = "#!/bin/sh\n# Put here by Intertie's set-up while it installs packages.\nexit 101\n"
_EMULATOR_USER = "libvirt-qemu"
_LOG = Path("/var/log/intertie-setup.log")


class CommandFailed(Exception):
    """A command of the set-up failed; the text is for a person."""


def wanted_packages(listing: str) -> list[str]:
    """The names in a list with comments."""
    lines = (line.partition("#")[0].strip() for line in listing.splitlines())
    return [line for line in lines if line]


def missing_packages(wanted: list[str]) -> list[str]:
    """Those of the wanted that no package which is installed whole is, or stands in for."""
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\t${Provides}\n"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    there = installed(listing)
    return [name for name in wanted if name not in there]


def installed(listing: str) -> set[str]:
    """Names in a list of package, state, and what it provides, with tabs between.

    What is provided counts: a nodejs that brings its own npm does not let Debian's in beside it.
    """
    names = set()
    for line in listing.splitlines():
        package, state, provides = line.split("\t")
        if state == "installed":
            names.add(package)
            names |= {each.split()[0] for each in provides.split(",") if each.strip()}
    return names


def update_lists() -> None:
    """Asks the machine's own package sources what they have."""
    logged(["apt-get", "-q", "update"])


def install(packages: list[str]) -> None:
    """Installs them; no service of theirs runs afterwards, now or at the next boot."""
    with _no_services():
        logged(["dpkg", "--configure", "-a"])  # what an interrupted run left half done
        logged(["apt-get", "-q", "-y", "--no-install-recommends", "install", *packages])
    if Path("/run/systemd/system").exists() and (units := _units_of(packages)):
        logged(["systemctl", "disable", *units])


def has_emulator_user() -> bool:
    """Whether libvirtd could start."""
    return _known(pwd.getpwnam, _EMULATOR_USER) and _known(grp.getgrnam, _EMULATOR_USER)


def add_emulator_user() -> None:
    """The user that Debian's libvirtd looks up at its start.

    It comes with a package that would also run a libvirtd of the machine's own.
    """
    if not _known(grp.getgrnam, _EMULATOR_USER):
        logged(["groupadd", "--system", _EMULATOR_USER])
    if not _known(pwd.getpwnam, _EMULATOR_USER):
        options = "--system --no-create-home --home-dir /var/lib/libvirt --shell /usr/sbin/nologin"
        logged(["useradd", *options.split(), "--gid", _EMULATOR_USER, _EMULATOR_USER])


def logged(command: list[str], *, cwd: Path | None = None) -> None:
    """Runs a command with its output in the set-up's log; shows the end of it on failure."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    _LOG.parent.mkdir(parents=True, exist_ok=True)
    with _LOG.open("ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait()
        except KeyboardInterrupt:
            # Killing a package manager would leave the system half changed: let it end.
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        with _LOG.open("rb") as log:
            log.seek(begin)
            last = log.read().decode(errors="replace").splitlines()[-15:]
        raise CommandFailed("\n".join([f"{' '.join(command[:4])} ... failed ({_LOG}):", *last]))


def _known(lookup: Callable[[str], object], name: str) -> bool:
    try:
        lookup(name)
    except KeyError:
        return False
    return True


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a service. One that is there already comes back."""
    if _POLICY.exists() and _POLICY.read_text(errors="replace") != _DENY:
        _POLICY.rename(_ASIDE)
    _POLICY.write_text(_DENY)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if _ASIDE.exists():
            _ASIDE.rename(_POLICY)
        else:
            _POLICY.unlink()


def _units_of(packages: list[str]) -> list[str]:
    listed = subprocess.run(
        ["dpkg", "-L", *packages], stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    paths = [Path(line) for line in listed.splitlines() if "/systemd/system/" in line]
    return sorted({path.name for path in paths if path.suffix in (".service", ".socket")})
