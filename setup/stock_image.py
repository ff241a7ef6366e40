"""Builds a stock image, a Debian system with cloud-init: `python3 -m setup.stock_image`.

Nothing in it is Intertie's: it is what any maker of cloud images makes, so that what is shown with
it holds for theirs. It boots by BIOS and by UEFI. Neither loop device nor mount is needed: the file
system is written by mke2fs, the boot loaders by hand.

It is built again when its recipe changes (`setup/stock`, this file), or when it is removed.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_TREE = Path(__file__).resolve().parent.parent
_RECIPE = _TREE / "setup" / "stock"
_DEFAULT_IMAGE = Path("/var/lib/intertie/guest/intertie-stock.qcow2")
_SOURCES = Path("/etc/apt")
_GRUB = Path("/usr/lib/grub")
_SUITE = "bookworm"
_MIB = 1024 * 1024
_SECTOR = 512
_DISK_MIB = 1536
"""A guest's disk is as large as it asks for: the root file system grows into it."""
_BIOS_START_MIB, _ESP_START_MIB, _ROOT_START_MIB = 1, 2, 18
_LEFT_OUT = ("man", "info", "locale", "lintian", "doc/*/[!c]*")
"""Below /usr/share. Copyright notices stay."""
_ROOM_MIB = 6 * 1024
"""For the tree, the disk and the image while it is built."""
_GRUB_MODULES = ("part_gpt", "ext2", "search", "search_label", "normal", "linux", "echo", "test")


class BuildFailed(Exception):
    """The image could not be made; the text says why and is meant for a person."""


def stock_image_path() -> Path:
    """Where the image is, or will be."""
    return Path(os.environ.get("INTERTIE_STOCK_IMAGE", str(_DEFAULT_IMAGE)))


def build_if_needed(image: Path) -> bool:
    """Whether the image was built: it is not where it was made from this recipe."""
    recipe = _recipe_digest()
    if image.exists() and _made_from(image) == recipe:
        return False
    image.parent.mkdir(parents=True, exist_ok=True)
    free_mib = shutil.disk_usage("/var/tmp").free // _MIB
    if free_mib < _ROOM_MIB:
        raise BuildFailed(f"/var/tmp has {free_mib} MiB free; {_ROOM_MIB} are needed")
    with tempfile.TemporaryDirectory(prefix="intertie-stock.", dir="/var/tmp") as folder:
        versions = _build(Path(folder), image)
    made = {"recipe": recipe, "packages": versions}
    image.with_suffix(".json").write_text(json.dumps(made, indent=2) + "\n")
    return True


def _build(folder: Path, image: Path) -> dict[str, str]:
    root, raw = folder / "root", folder / "disk.raw"
    _bootstrap(folder, root)
    listed = _run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W")
    _write_partitions(raw)
    _write_root(raw, root)
    _write_bios_loader(raw, folder)
    _write_uefi_loader(raw, folder)
    fresh = image.with_suffix(".new")
    _run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(fresh))
    fresh.chmod(0o644)
    fresh.rename(image)
    return dict(line.split("\t") for line in listed.splitlines())


def _bootstrap(folder: Path, root: Path) -> None:
    """A tree of Debian, from where this machine's own apt gets its packages."""
    settings = folder / "apt.conf"
    dumped = _run("apt-config", "dump")
    settings.write_text("\n".join(re.findall(r"^Acquire::(?:https?|ftp|Retries).*$", dumped, re.M)))
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{each}" for each in _LEFT_OUT]
    _run(
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
        f"--include={','.join(_words(_RECIPE / 'packages.txt'))}",
        f"--aptopt={settings}", *excluded,
        f"--customize-hook={_RECIPE}/finish",
        _SUITE, str(root), *map(str, debian_sources(_SOURCES)),
    )  # fmt: skip


def debian_sources(folder: Path) -> list[Path]:
    """Of a machine's package sources those that name the suite; others are not Debian's."""
    kept = (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*")))
    names_suite = re.compile(
        rf"^(?:deb\s.*|Suites:.*)\s{_SUITE}(?:-updates|-security)?\b(?!-)", re.M
    )
    found = [each for each in kept if each.is_file() and names_suite.search(each.read_text())]
    if not found:
        raise BuildFailed(f"no list of package sources in {folder} names {_SUITE}")
    return found


def _write_partitions(raw: Path) -> None:
    """GPT: room for GRUB's BIOS half, an EFI system partition, and last, so that it can grow, /."""
    with raw.open("wb") as disk:
        disk.truncate(_DISK_MIB * _MIB)
    table = (
        "label: gpt\n"
        f"start={_BIOS_START_MIB}MiB, size={_ESP_START_MIB - _BIOS_START_MIB}MiB,"
        " type=21686148-6449-6E6F-744E-656564454649\n"
        f"start={_ESP_START_MIB}MiB, size={_ROOT_START_MIB - _ESP_START_MIB}MiB, type=uefi\n"
        f"start={_ROOT_START_MIB}MiB, type=linux\n"
    )
    _run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(raw), text=table)


def _write_root(raw: Path, root: Path) -> None:
    # The last MiB is the table's second copy.
    size_mib = _DISK_MIB - _ROOT_START_MIB - 1
    _run(
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "stock-root", "-d", str(root),
        "-E", f"offset={_ROOT_START_MIB * _MIB}", str(raw), f"{size_mib}M",
    )  # fmt: skip


def _write_bios_loader(raw: Path, folder: Path) -> None:
    """What grub-install writes: its first sector into the MBR, all else into its partition."""
    core_path = _grub_image(folder, "i386-pc", "biosdisk")
    core = bytearray(core_path.read_bytes())
    start = _BIOS_START_MIB * _MIB // _SECTOR
    # The last entry of the list of blocks in the first sector of `core`: where the others are.
    sectors = -(-len(core) // _SECTOR)
    struct.pack_into("<QH", core, _SECTOR - 12, start + 1, sectors - 1)
    boot = bytearray((_GRUB / "i386-pc/boot.img").read_bytes()[:440])
    struct.pack_into("<Q", boot, 0x5C, start)
    with raw.open("r+b") as disk:
        disk.write(boot)
        disk.seek(start * _SECTOR)
        disk.write(core)


def _write_uefi_loader(raw: Path, folder: Path) -> None:
    """By the name that firmware looks for where nobody has told it another."""
    loader = _grub_image(folder, "x86_64-efi")
    start, end = _ESP_START_MIB * _MIB, _ROOT_START_MIB * _MIB
    at = f"{raw}@@{start}"
    sectors = str((end - start) // _SECTOR)
    _run(
        "mformat",
        "-i",
        at,
        "-T",
        sectors,
        "-H",
        str(start // _SECTOR),
        "-h",
        "16",
        "-s",
        "63",
        "::",
    )
    _run("mmd", "-i", at, "::/EFI", "::/EFI/BOOT")
    _run("mcopy", "-i", at, str(loader), "::/EFI/BOOT/BOOTX64.EFI")


def _grub_image(folder: Path, platform: str, *modules: str) -> Path:
    image = folder / f"grub-{platform}"
    _run(
        "grub-mkimage", "-O", platform, "-o", str(image), "-c", str(_RECIPE / "early.cfg"),
        "-p", "/boot/grub", *modules, *_GRUB_MODULES,
    )  # fmt: skip
    return image


def _recipe_digest() -> str:
    digest = hashlib.sha256()
    for path in (*_files(_RECIPE), Path(__file__)):
        content = path.read_bytes()
        mode = os.access(path, os.X_OK)
        digest.update(f"{path.relative_to(_TREE)} {mode} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _made_from(image: Path) -> str | None:
    """The recipe of an image; None: nobody knows."""
    try:
        made: dict[str, str] = json.loads(image.with_suffix(".json").read_text())
        return made.get("recipe")
    except (OSError, ValueError, AttributeError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _words(path: Path) -> list[str]:
    lines = (line.partition("#")[0] for line in path.read_text().splitlines())
    return [word for line in lines for word in line.split()]


def _run(*command: str, text: str | None = None) -> str:
    environment = dict(os.environ, LC_ALL="C", MTOOLS_SKIP_CHECK="1")
    done = subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise BuildFailed(f"{command[0]} failed:\n{said}")
    return done.stdout


def main() -> int:
    image = stock_image_path()
    try:
        built = build_if_needed(image)
    except BuildFailed as error:
        print(f"stock image: {error}", file=sys.stderr)
        return 1
    size_mib = image.stat().st_size / _MIB
    print(f"stock image: {image} {'built' if built else 'is current'}, {size_mib:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
