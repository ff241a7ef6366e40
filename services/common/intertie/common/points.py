"""Named points at which a test of faults may make a process stop, to do something to it there.

A service whose settings name a folder of points (`fault_points`) looks, at each point it reaches,
for a file of the point's name in that folder. Where there is one it is renamed to
`{point}.standing` and the process stops itself as by SIGSTOP, all of it, before it does anything
more: whoever made the file may kill it, or have it go on with SIGCONT. A file arms its point
once. Without the setting a point costs one look at a variable.
"""

import os
import signal
import threading
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

POINTS: dict[str, str] = {
    # The coordinator, from the first record of a co-allocation to the last.
    "metasched.before_begin": "A plan is made; nothing is written and no site knows of it.",
    "metasched.begun": "The transaction and its cluster are on record; sites are being asked.",
    "metasched.prepared_one": "A site has prepared and its receipt came; of the others nothing.",
    "metasched.prepared_all": "All receipts are there and verified; nothing is decided.",
    "metasched.decided": "COMMIT is on record, with the cluster; no site and no caller knows.",
    "metasched.told_one": "A site was told the decision and answered.",
    "metasched.told_all": "Every site was told; the transaction is still on record.",
    "metasched.settled": "The transaction's record is gone; its caller was answered before.",
    "metasched.before_abort": "It cannot be committed; ABORT is not on record yet.",
    "metasched.aborted": "ABORT is on record; no site knows.",
    "metasched.before_end": "A cluster's end was asked for; that is not on record yet.",
    "metasched.end_requested": "That its end was asked for is on record; no site knows.",
    "metasched.released_one": "A site was asked for the end of its part and answered.",
    # The coordinator, as a cluster gets other terms.
    "metasched.before_amend": "Other terms are planned; nothing is written, no site was asked.",
    "metasched.amend_begun": "That other terms are asked for is on record; no site was asked.",
    "metasched.amend_decided": "Other terms are in force on record; no site and no caller knows.",
    # A site's broker, in the order of a part's life.
    "broker.before_hold": "A hold has come, and its images are there; nothing is decided.",
    "broker.held": "The part is PREPARED on record; the coordinator has no receipt.",
    "broker.before_resolve": "A decision came and is in order; it is not applied.",
    "broker.resolved": "The decision is applied on record; the coordinator has no answer.",
    "broker.before_tell": "What agents are to do is decided; no record says so.",
    "broker.told": "The records of agents say what is wanted, and the part its generation.",
    "broker.before_release": "A part is to be given back or ended; that is not on record.",
    "broker.released": "That a part is given back or is to end is on record, unanswered.",
    "broker.before_part_ended": "All hosts have said that nothing is left; the part lives on.",
    "broker.part_ended": "The part is ENDED, and no host's record speaks of it.",
    # A site's broker, as other terms come for a part that stands.
    "broker.before_amend_held": "Other terms were asked for; nothing is decided.",
    "broker.amend_held": "Other terms are PREPARED beside those in force; nobody has the receipt.",
    "broker.before_amend_resolved": "A decision on other terms came and is in order; not applied.",
    "broker.amend_resolved": "The part has the terms that were decided; nobody has the answer.",
    # A host's agent, as a guest comes and goes.
    "agent.obeying": "New records are read and kept on disk; nothing is done about them.",
    "agent.before_connect": "What is not wanted is away; networks are not made or removed yet.",
    "agent.connected": "Networks and their classes are as wanted; no guest was touched.",
    "agent.disk_made": "A guest has its disk, and no seed.",
    "agent.before_define": "A guest has all its files; libvirt does not know of it.",
    "agent.defined": "libvirt knows the guest; it does not run.",
    "agent.started": "The guest runs; nobody was told.",
    "agent.before_remove": "A guest that is not wanted is about to be destroyed.",
    "agent.removed": "The guest is gone from libvirt; its files are there.",
    "agent.files_removed": "The guest's files are gone; its networks are there.",
    "agent.before_seen": "A pass is over; the site was not told of it.",
    "agent.seen": "The site was told what there is of a part.",
    # A site's images.
    "imagestore.found": "An image was found for who asked; it was not answered.",
    "imagestore.sending": "The first block of an image is read; nothing was sent.",
    "imagestore.received": "All bytes of an image have come and are right; it has no name.",
    "imagestore.published": "An image has its name on disk; its sender has no answer.",
}
"""Every point, and how things stand there."""

_folder: Path | None = None


def stop_in(folder: Path | None) -> None:
    """To be called once, by `main`: from then on this process stops at what is armed in `folder`.

    Warns of it: left set in a deployment, whoever may write there can stop the service.
    """
    global _folder
    _folder = folder
    if folder is not None:
        log.warning("points.armed", folder=str(folder))


def reach(name: str) -> None:
    """This process stands at the point `name` of POINTS."""
    if _folder is not None:
        _stand(_folder, name)


def _stand(folder: Path, name: str) -> None:
    try:
        os.rename(folder / name, folder / f"{name}.standing")
    except FileNotFoundError:
        return
    log.warning("points.standing", point=name)
    # To this very thread: nothing of it is run any more once the call has been made.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    log.warning("points.went_on", point=name)
