"""Builds the testbed's guest image from Debian packages: `python3 -m setup.guest_image`.

Kernel and programs are taken out of packages that are never installed here. The image is a disk
with one FAT partition that holds a boot loader, the kernel and an archive with everything else, so
that nothing needs to be mounted to make it, and the guest runs from memory.
"""

import gzip
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from setup.cpio import Archive

_TREE = Path(__file__).resolve().parent.parent
_RECIPE = _TREE / "guest"
_DEFAULT_IMAGE = Path("/var/lib/intertie/guest/intertie-guest.qcow2")
_CACHE = Path("/var/cache/intertie/guest")
_LISTS = Path("/var/lib/apt/lists")
_MIB = 1024 * 1024
_DISK_BYTES = 64 * _MIB
"""What lies behind this on a larger disk is free for measuring."""
_PARTITION_START = 1 * _MIB
_MBR_CODE = Path("/usr/lib/SYSLINUX/mbr.bin")
_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64")
_EPOCH = "1700000000"
_APT = ("-o", "APT::Sandbox::User=root")


class BuildFailed(Exception):
    """The image could not be made; the text says why and is meant for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an image was made from; kept beside it."""

    recipe: str
    lists_changed_ns: int
    packages: dict[str, str]


def image_path() -> Path:
    """Where the image is, or will be."""
    return Path(os.environ.get("INTERTIE_GUEST_IMAGE", str(_DEFAULT_IMAGE)))


def build_if_needed(image: Path) -> bool:
    """Whether the image was built; it is not where recipe and packages are those it was made from.

    Whether newer packages are to be had is asked only after the package lists have changed.
    """
    made_from = _read_manifest(image)
    recipe, changed_ns = _recipe_digest(), _lists_changed_ns()
    if made_from and made_from.recipe == recipe and made_from.lists_changed_ns == changed_ns:
        return False
    versions = _candidate_versions(_with_kernel(_words(_RECIPE / "packages.txt")))
    now = Manifest(recipe=recipe, lists_changed_ns=changed_ns, packages=versions)
    if not (made_from and made_from.recipe == recipe and made_from.packages == versions):
        _build(image, versions)
        _write_manifest(image, now)
        return True
    _write_manifest(image, now)
    return False


def is_current(image: Path) -> bool:
    """Whether `build_if_needed` would find nothing to ask and nothing to do."""
    made_from = _read_manifest(image)
    return (
        made_from is not None
        and made_from.recipe == _recipe_digest()
        and made_from.lists_changed_ns == _lists_changed_ns()
    )


def lists_present() -> bool:
    """Whether this machine has package lists at all; some remove them to save space."""
    return _lists_changed_ns() != 0


def module_order(wanted: Sequence[str], depends: dict[str, list[str]]) -> list[str]:
    """The wanted modules and all they depend on, each after what it needs, none twice."""
    order: list[str] = []

    def visit(name: str) -> None:
        for needed in depends[name]:
            visit(needed)
        if name not in order:
            order.append(name)

    for name in wanted:
        visit(name)
    return order


def _build(image: Path, versions: dict[str, str]) -> None:
    root = _CACHE / "root"
    _run("rm", "-rf", str(root))
    root.mkdir(parents=True)
    for name, version in versions.items():
        _run("dpkg", "-x", str(_download(name, version)), str(root))
    work = _CACHE / "work"
    work.mkdir(exist_ok=True)
    # gzip boots as fast as lz4, zstd and no compression do, and lets 96 MiB of memory suffice.
    packed = gzip.compress(_initramfs(root).pack(), compresslevel=9, mtime=0)
    (work / "initrd.img").write_bytes(packed)
    kernel = next((root / "boot").glob("vmlinuz-*"))
    raw = work / "disk.raw"
    _write_disk(raw, kernel=kernel, initramfs=work / "initrd.img")
    image.parent.mkdir(parents=True, exist_ok=True)
    fresh = image.with_suffix(".new")
    _run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(fresh))
    fresh.chmod(0o644)
    fresh.rename(image)
    _run("rm", "-rf", str(work), str(root))


def _initramfs(root: Path) -> Archive:
    archive = Archive()
    for folder in ("dev", "proc", "sys", "mnt", "run", "tmp", "var/log", "sbin", "bin"):
        archive.add_folder(folder)
    archive.add_folder("root", mode=0o700)
    archive.add_character_device("dev/console", 5, 1)
    archive.add_character_device("dev/null", 1, 3)
    archive.add_link("etc/mtab", "/proc/mounts")
    _add_programs(archive, root)
    _add_modules(archive, root)
    overlay = _RECIPE / "rootfs"
    for path in _files(overlay):
        mode = 0o755 if os.access(path, os.X_OK) else 0o644
        if path.name == "shadow":
            mode = 0o600
        archive.add_file(str(path.relative_to(overlay)), path.read_bytes(), mode=mode)
    return archive


def _add_programs(archive: Archive, root: Path) -> None:
    loader = root / "lib64/ld-linux-x86-64.so.2"
    search = ":".join(str(root / folder) for folder in _LIBRARY_FOLDERS)
    archive.add_file("lib64/ld-linux-x86-64.so.2", loader.read_bytes(), mode=0o755)
    for program in _words(_RECIPE / "programs.txt"):
        path = root / program.lstrip("/")
        archive.add_file(program.lstrip("/"), path.read_bytes(), mode=0o755)
        listed = subprocess.run(
            [str(loader), "--library-path", search, "--list", str(path)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for soname, where in re.findall(r"^\s+([^/\s]+) => (\S+)", listed, re.M):
            if not where.startswith(str(root)):
                raise BuildFailed(f"{program} needs {soname}: add its package to packages.txt")
            archive.add_file(f"lib/x86_64-linux-gnu/{soname}", Path(where).read_bytes())
    archive.add_link("init", "/bin/busybox")
    busybox = str(root / "bin/busybox")
    for applet in _run(busybox, "--list-full").split():
        if applet not in archive.entries:
            archive.add_link(applet, "/bin/busybox")


def _add_modules(archive: Archive, root: Path) -> None:
    """Each list of modules.txt as a list of files in the order in which they can be loaded."""
    found = {
        path.name.removesuffix(".ko").replace("-", "_"): path
        for path in sorted((root / "lib/modules").rglob("*.ko"))
    }
    depends = {name: _module_depends(path) for name, path in found.items()}
    lists: dict[str, list[str]] = {}
    for line in _lines(_RECIPE / "modules.txt"):
        when, name = line.split()
        name = name.replace("-", "_")
        if name not in found:
            raise BuildFailed(f"the kernel has no module {name}")
        lists.setdefault(when, []).append(name)
    for when, wanted in lists.items():
        paths = []
        for name in module_order(wanted, depends):
            target = f"lib/modules/{found[name].name}"
            archive.add_file(target, _without_signature(found[name].read_bytes()))
            paths.append(f"/{target}\n")
        archive.add_file(f"lib/modules/{when}", "".join(paths).encode())


def _module_depends(module: Path) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    names = found[1].decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def _without_signature(module: bytes) -> bytes:
    """A module without the signature at its end: checking it is slow under emulation."""
    marker = b"~Module signature appended~\n"
    if not module.endswith(marker):
        return module
    end = len(module) - len(marker)
    (signature_bytes,) = struct.unpack(">I", module[end - 4 : end])
    return module[: end - 12 - signature_bytes]


def _write_disk(raw: Path, *, kernel: Path, initramfs: Path) -> None:
    sectors = (_DISK_BYTES - _PARTITION_START) // 512
    start = _PARTITION_START // 512
    unused_chs = b"\xfe\xff\xff"
    bootable_fat16 = struct.pack("<B3sB3sII", 0x80, unused_chs, 0x0E, unused_chs, start, sectors)
    sector = _MBR_CODE.read_bytes()[:440].ljust(446, b"\0")
    sector += bootable_fat16.ljust(64, b"\0") + b"\x55\xaa"
    with raw.open("wb") as disk:
        disk.write(sector)
        disk.truncate(_DISK_BYTES)
    at = f"{raw}@@{_PARTITION_START}"
    _run(
        "mformat", "-i", at, "-T", str(sectors), "-c", "16", "-H", str(start),
        "-s", "63", "-h", "255", "-N", "1e71e001", "-v", "INTERTIE", "::",
    )  # fmt: skip
    os.utime(kernel, (int(_EPOCH), int(_EPOCH)))
    os.utime(initramfs, (int(_EPOCH), int(_EPOCH)))
    config = initramfs.with_name("syslinux.cfg")
    config.write_bytes((_RECIPE / "syslinux.cfg").read_bytes())
    os.utime(config, (int(_EPOCH), int(_EPOCH)))
    _run("syslinux", "--install", "--offset", str(_PARTITION_START), str(raw))
    for source, name in (
        (config, "syslinux.cfg"),
        (kernel, "vmlinuz"),
        (initramfs, "initrd.img"),
    ):
        _run("mcopy", "-m", "-i", at, str(source), f"::/{name}")


def _with_kernel(packages: Sequence[str]) -> list[str]:
    """The packages, with the kernel's own in place of the one that only depends on it."""
    meta = packages[0]
    shown = _run("apt-cache", "show", "--no-all-versions", meta)
    kernel = re.search(r"^Depends: (linux-image-\S+)", shown, re.MULTILINE)
    if not kernel:
        raise BuildFailed(f"the package lists say of no kernel that {meta} depends on it")
    return [kernel[1], *packages[1:]]


def _candidate_versions(packages: Sequence[str]) -> dict[str, str]:
    shown = _run("apt-cache", "policy", *packages)
    versions = dict(re.findall(r"^(\S+):\n(?:  Installed:.*\n)  Candidate: (\S+)", shown, re.M))
    for name in packages:
        if versions.get(name, "(none)") == "(none)":
            raise BuildFailed(f"the package lists have no {name}: run apt-get update")
    return {name: versions[name] for name in packages}


def _download(name: str, version: str) -> Path:
    _CACHE.mkdir(parents=True, exist_ok=True)
    encoded = version.replace(":", "%3a")
    for _attempt in range(2):
        for suffix in ("amd64", "all"):
            path = _CACHE / f"{name}_{encoded}_{suffix}.deb"
            if path.exists():
                return path
        for old in _CACHE.glob(f"{name}_*.deb"):
            old.unlink()
        _run("apt-get", *_APT, "-q", "download", f"{name}={version}", cwd=_CACHE)
    raise BuildFailed(f"apt-get download {name}={version} left no file that is named so")


def _recipe_digest() -> str:
    digest = hashlib.sha256()
    for path in (*_files(_RECIPE), Path(__file__), Path(__file__).with_name("cpio.py")):
        content = path.read_bytes()
        mode = os.access(path, os.X_OK)
        digest.update(f"{path.relative_to(_TREE)} {mode} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _lists_changed_ns() -> int:
    """0 where there are no lists."""
    return max((path.stat().st_mtime_ns for path in _LISTS.glob("*_Packages*")), default=0)


def _read_manifest(image: Path) -> Manifest | None:
    try:
        read = json.loads(image.with_suffix(".json").read_text())
        return Manifest(**read) if image.exists() else None
    except (OSError, ValueError, TypeError):
        return None


def _write_manifest(image: Path, manifest: Manifest) -> None:
    fields = {
        "recipe": manifest.recipe,
        "lists_changed_ns": manifest.lists_changed_ns,
        "packages": manifest.packages,
    }
    image.with_suffix(".json").write_text(json.dumps(fields, indent=2) + "\n")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _lines(path: Path) -> list[str]:
    kept = (line.strip() for line in path.read_text().splitlines())
    return [line for line in kept if line and not line.startswith("#")]


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = dict(
        os.environ, LC_ALL="C", TZ="UTC", SOURCE_DATE_EPOCH=_EPOCH, MTOOLS_SKIP_CHECK="1"
    )
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise BuildFailed(f"{' '.join(command)} failed:\n{said}")
    return done.stdout


def main() -> int:
    image = image_path()
    try:
        built = build_if_needed(image)
    except BuildFailed as error:
        print(f"guest image: {error}", file=sys.stderr)
        return 1
    size_mib = image.stat().st_size / _MIB
    print(f"guest image: {image} {'built' if built else 'is current'}, {size_mib:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
