"""The power switch of a testbed's hosts: `python -m testbed.power INSTANCE SITE HOST` is off.

It exits with 0 once nothing of the host runs, so a broker may be given it as its way to fence.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from testbed.bed import Testbed

_DAEMONS = ("virtlogd", "libvirtd", "nodeagent")
"""In the order in which a host starts them."""
_WITHIN_S = 20.0


def power_off(bed: Testbed, host: str) -> None:
    """Ends everything that runs on `SITE/HOST`, at once; TimeoutError where something stays.
    What is on its disk stays."""
    until = time.monotonic() + _WITHIN_S
    for daemon in reversed(_DAEMONS):
        component = bed.component(f"{host}/{daemon}")
        if component.running:
            component.kill9()
    while pids := bed.guest_pids(host):
        if time.monotonic() > until:
            raise TimeoutError(f"{host}: {pids} still run after {_WITHIN_S:g} s")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def power_on(bed: Testbed, host: str) -> None:
    """Starts the daemons of a host that is off."""
    for daemon in _DAEMONS:
        bed.component(f"{host}/{daemon}").start()


def main() -> int:
    instance, site, host = sys.argv[1:]
    power_off(Testbed.find(instance), f"{site}/{host}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
