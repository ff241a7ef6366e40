"""Images of guests' disks, from which other guests boot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, eventually, group, spec, user_with_image
from tests.e2e.one_site import READY_WITHIN_S, SITE, begin, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

HOST = HostSpec(name="n1", memory_mib=1536)
BOOT = "cat /proc/sys/kernel/random/boot_id"
DISK = "$(cat /run/intertie/disk)"
"""Of what a guest of this image keeps, the root is none."""
WRITE = (
    "mkdir -p /tmp/kept && echo {text} >/tmp/kept/note && tar -C /tmp/kept -cf /tmp/kept.tar note"
    f" && dd if=/tmp/kept.tar of={DISK} bs=1M seek=100 conv=notrunc && sync"
)
GUEST_AGENT = r"""
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=/dev/$(basename $(dirname $name))
done
exec 3<>$port
while :; do
  read -r line <&3 || { sleep 1; continue; }
  case "$line" in
    *guest-sync*) id=${line##*:}; echo "{\"return\": ${id%%\}*}}" >&3 ;;
    *fsfreeze-freeze*) sync; echo frozen >>/tmp/freezes; echo '{"return": 1}' >&3 ;;
    *fsfreeze-thaw*) echo thawed >>/tmp/freezes; echo '{"return": 1}' >&3 ;;
    *) echo '{"return": {}}' >&3 ;;
  esac
done
"""
"""As much of one as answers pings, and says when it was asked to freeze file systems."""
READ = f"dd if={DISK} bs=1M skip=100 count=1 | tar -xOf - note"


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("snapshot", HOST) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    return user_with_image(bed, tmp_path_factory.mktemp("snapshot"), endpoint=SITE)


def shown(user: User, name: str) -> dict[str, Any]:
    [found] = json.loads(user.do("-o", "json", "image", "show", name))
    return dict(found)


def copies(user: User) -> list[str]:
    disks = user.testbed.places.host_disk(SITE, HOST.name) / "agent" / "disks"
    return sorted(path.name for path in disks.glob("*.cop*"))


def test_a_file_that_was_written_is_in_what_boots_from_the_image(user: User) -> None:
    """Taken while the guest runs, over the end of its host's agent, and while it is off."""
    one = group("a")
    one["environment"]["readiness"] = "GUEST_AGENT"
    user.create("one", spec(one), wait=False)
    eventually(
        lambda: user.ssh("one", "a-0", "true").code == 0, within_s=READY_WITHIN_S, what="it is up"
    )
    user.in_guest("one", "a-0", f"cat >/tmp/agent <<'END'\n{GUEST_AGENT}\nEND")
    begin(user, "one", "a-0", "sh /tmp/agent")
    eventually(
        lambda: user.show("one")["workspaces"][0].get("ready"), within_s=60, what="it is ready"
    )
    user.in_guest("one", "a-0", WRITE.format(text="before"))
    booted = user.in_guest("one", "a-0", BOOT)
    ask = ("cluster", "snapshot", "one", "a-0", "--image", "before", "--request-id", "r1")
    user.do(*ask, "--no-wait")
    agent = user.testbed.component(f"{SITE}/{HOST.name}/nodeagent")
    eventually(lambda: copies(user), within_s=60, every_s=0.05, what="its disk is copied")
    agent.kill9()
    agent.start()
    assert user.do(*ask).endswith("/images/before\n"), "the same request goes on"

    image = shown(user, "before")
    assert image["source"]["cluster"] == user.show("one")["name"]
    assert image["source"]["workspace"] == "a-0"
    assert image["source"]["quiesced"], "its agent has frozen its file systems"
    freezes = user.in_guest("one", "a-0", "cat /tmp/freezes").split()
    assert "frozen" in freezes
    assert freezes[-1] == "thawed", "whenever its host's agent was killed"
    taken, put = image["source"]["taken_time"], image["create_time"]
    assert datetime.fromisoformat(taken) < datetime.fromisoformat(put)
    assert image["owner"] == shown(user, "intertie-guest")["owner"]
    made = user.show("one")["workspaces"][0]["snapshot"]
    assert (made["state"], made["digest"]) == ("READY", image["digest"])
    assert copies(user) == []
    assert user.in_guest("one", "a-0", BOOT) == booted, "it has gone on"

    user.in_guest("one", "a-0", WRITE.format(text="after"))
    user.do("cluster", "stop", "one")
    user.do("cluster", "snapshot", "one", "a-0", "--image", "off")
    assert shown(user, "off")["digest"] != image["digest"]

    two = spec(group("b", image="before"), group("c", image="off"), subnet="10.2.0.0/24")
    user.create("two", two)
    assert user.in_guest("two", "b-0", READ).strip() == "before"
    assert user.in_guest("two", "c-0", READ).strip() == "after"
