"""Where everything of a host's guests is on its own disk."""

from dataclasses import dataclass
from pathlib import Path

from intertie.nodeagent.domain.migrating import Channel

MAX_SOCKET_PATH = 107
"""Bytes that fit into a unix socket's address."""


def image_file(digest: str) -> str:
    """Once all of it is there."""
    return f"{digest.removeprefix('b3:')}.img"


@dataclass(frozen=True, slots=True)
class WorkspaceFiles:
    """Names of files, all of which follow from the workspace's uid."""

    data: Path

    @property
    def disks(self) -> Path:
        return self.data / "disks"

    @property
    def seeds(self) -> Path:
        return self.data / "seeds"

    @property
    def channels(self) -> Path:
        return self.data / "ch"

    @property
    def logs(self) -> Path:
        return self.data / "log"

    @property
    def cache(self) -> Path:
        return self.data / "cache"

    @property
    def folders(self) -> tuple[Path, ...]:
        return self.disks, self.seeds, self.channels, self.logs, self.cache

    def disk(self, uid: str) -> Path:
        return self.disks / f"{uid}.qcow2"

    def volume(self, uid: str, number: int) -> Path:
        """The disk with that number among those beside its root disk."""
        return self.disks / f"{uid}.volume-{number}.qcow2"

    def image(self, digest: str) -> Path:
        return self.cache / image_file(digest)

    def saving(self, uid: str) -> Path:
        """The memory of a guest that is being put aside."""
        return self.disks / f"{uid}.saving"

    def saved(self, uid: str) -> Path:
        return self.disks / f"{uid}.saved"

    def restoring(self, uid: str) -> Path:
        return self.disks / f"{uid}.restoring"

    def copying(self, uid: str) -> Path:
        """A copy of a disk that is being made for an image."""
        return self.disks / f"{uid}.copying"

    def copied(self, uid: str) -> Path:
        return self.disks / f"{uid}.copied"

    def given(self, uid: str) -> Path:
        """The disk of one that was given up to another host."""
        return self.disks / f"{uid}.given"

    def coming(self, uid: str, channel: Channel) -> Path:
        """A file of one that comes from another host as it is put aside: not whole yet."""
        return self.disks / f"{uid}.coming-{channel.value.lower()}"

    def come(self, uid: str, channel: Channel) -> Path:
        """It is whole, and that host may have the workspace still."""
        return self.disks / f"{uid}.come-{channel.value.lower()}"

    def seed(self, uid: str) -> Path:
        return self.seeds / f"{uid}.iso"

    def ready_socket(self, uid: str) -> Path:
        return self.channels / f"{uid}.ready"

    def peer_socket(self, uid: str) -> Path:
        """Behind it is the libvirt of the host that it is sent to."""
        return self.channels / f"{uid}.peer"

    def console_socket(self, uid: str) -> Path:
        return self.channels / f"{uid}.tty"

    def console_log(self, uid: str) -> Path:
        return self.logs / f"{uid}.log"
