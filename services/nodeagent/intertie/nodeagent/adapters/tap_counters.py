"""What has gone through a guest's NIC, by the kernel's counters of its tap: files, no program."""

from pathlib import Path

from intertie.nodeagent.domain.used import Mark, nic_mark

_DEVICES = Path("/sys/class/net")


def read_tap(device: str) -> Mark | None:
    """As the guest sees it: what a tap receives, the guest has sent. None where there is none, or
    it went while it was read."""
    folder = _DEVICES / device
    try:
        return nic_mark(
            (folder / "ifindex").read_text().strip(),
            sent_bytes=int((folder / "statistics" / "rx_bytes").read_text()),
            received_bytes=int((folder / "statistics" / "tx_bytes").read_text()),
        )
    except (OSError, ValueError):
        return None
