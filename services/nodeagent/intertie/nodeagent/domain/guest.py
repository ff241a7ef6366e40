"""What a guest says of itself: believed by nobody but its owner."""

import json

MAX_LINE_BYTES = 64 * 1024
READY_PORT = "org.intertie.ready.0"


class ReadyLines:
    """Finds the ready message in what a guest writes to its port, however it is cut up.

    A guest may write anything: at most one line is kept, and a longer one is thrown away.
    """

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._kept = b""
        self._skips = False

    def feed(self, data: bytes) -> bool:
        """Whether a ready message with the right nonce ended in `data`."""
        *lines, rest = (self._kept + data).split(b"\n")
        found = False
        for line in lines:
            if not self._skips and is_ready(line, self._nonce):
                found = True
            self._skips = False
        if len(rest) > MAX_LINE_BYTES:
            rest, self._skips = b"", True
        self._kept = rest
        return found


def ready_line(nonce: str) -> str:
    """What a guest whose seed has this nonce says when it is ready; `is_ready` takes it."""
    return json.dumps({"event": "ready", "nonce": nonce})


def is_ready(line: bytes, nonce: str) -> bool:
    """`{"event": "ready", "nonce": ...}` with the nonce of the guest's own seed."""
    if not nonce or len(line) > MAX_LINE_BYTES:
        return False
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(message, dict)
        and message.get("event") == "ready"
        and message.get("nonce") == nonce
    )
