"""What the agent must not forget, on its own disk: replaced as a whole, never half written."""

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.common.errors import FieldInvalid
from intertie.common.etcd.records import RecordUnreadable, decode, encode
from intertie.nodeagent.convert import part_from_proto, part_to_proto
from intertie.nodeagent.domain.power import MemoryMove
from intertie.nodeagent.domain.reconcile import Kept, KnownPart, Note
from intertie.nodeagent.domain.sign_of_life import SignOfLife
from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotState
from intertie.nodeagent.domain.used import Tallies, Tally

log = structlog.get_logger(__name__)

_SCHEMA = 1


class StateFile:
    """Parts with the highest generation that was obeyed, and when the site was last heard of."""

    def __init__(self, folder: Path) -> None:
        self._parts = folder / "parts.json"
        self._contact = folder / "contact.json"
        self._classes = folder / "classes.json"
        self._life = folder / "life.json"
        self._used = folder / "used.json"

    def load(self) -> Kept | None:
        document = _read(self._parts)
        if document is None:
            return None
        try:
            return Kept(
                parts={uid: _part(entry) for uid, entry in document["parts"].items()},
                complete=document.get("complete", True),
            )
        except (KeyError, TypeError, ValueError, FieldInvalid) as error:
            log.error("state.unreadable", file=str(self._parts), problem=str(error))
            return None

    def save(self, kept: Kept) -> None:
        entries = {uid: _entry(part) for uid, part in kept.parts.items()}
        _write(self._parts, {"complete": kept.complete, "parts": entries})

    def load_contact(self) -> datetime | None:
        document = _read(self._contact)
        try:
            return datetime.fromisoformat(document["last"]) if document else None
        except (KeyError, TypeError, ValueError):
            return None

    def save_contact(self, moment: datetime) -> None:
        _write(self._contact, {"last": moment.isoformat()})

    def load_sign_of_life(self) -> SignOfLife | None:
        document = _read(self._life)
        try:
            return _sign_of_life(document) if document else None
        except (KeyError, TypeError, ValueError) as error:
            log.error("state.unreadable", file=str(self._life), problem=str(error))
            return None

    def save_sign_of_life(self, last: SignOfLife) -> None:
        seconds = last.fence_after.total_seconds()
        _write(self._life, {"at": last.at, "boot": last.boot, "fence_after_s": seconds})

    def load_classes(self) -> dict[str, dict[str, int]]:
        document = _read(self._classes)
        devices: dict[str, dict[str, int]] = document.get("devices", {}) if document else {}
        return devices

    def save_classes(self, devices: Mapping[str, Mapping[str, int]]) -> None:
        _write(self._classes, {"devices": devices})

    def load_tallies(self) -> dict[str, Tally]:
        try:
            return dict(decode(Tallies, self._used.read_bytes()).tallies)
        except FileNotFoundError:
            return {}
        except (OSError, RecordUnreadable) as error:
            log.error("state.unreadable", file=str(self._used), problem=str(error))
            return {}

    def save_tallies(self, tallies: Mapping[str, Tally]) -> None:
        _put(self._used, encode(Tallies(tallies=tallies)))


def _sign_of_life(document: Mapping[str, Any]) -> SignOfLife:
    return SignOfLife(
        at=float(document["at"]),
        boot=str(document["boot"]),
        fence_after=timedelta(seconds=float(document["fence_after_s"])),
    )


def _part(entry: Mapping[str, Any]) -> KnownPart:
    return KnownPart(
        wanted=part_from_proto(pb.WantedPart.FromString(b64decode(entry["record"]))),
        present=entry["present"],
        notes={
            uid: Note(
                ready_time=_moment(note["ready"]),
                powered_off=note["powered_off"],
                boots=note.get("boots", 0),
                starting=note.get("starting", False),
                paused=note.get("paused", False),
                was_ready=_moment(note.get("was_ready", "")),
                saved=_move(note.get("saved")),
                restored=_move(note.get("restored")),
                snapshot=_snapshot(note.get("snapshot")),
                frozen=note.get("frozen", False),
            )
            for uid, note in entry["notes"].items()
        },
    )


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _move(entry: Mapping[str, Any] | None) -> MemoryMove | None:
    if not entry:
        return None
    return MemoryMove(bytes=entry["bytes"], duration=timedelta(seconds=entry["seconds"]))


def _move_entry(move: MemoryMove | None) -> Mapping[str, Any] | None:
    if move is None:
        return None
    return {"bytes": move.bytes, "seconds": move.duration.total_seconds()}


def _snapshot(entry: Mapping[str, Any] | None) -> SnapshotNote | None:
    if not entry:
        return None
    return SnapshotNote(
        id=entry["id"],
        taken_time=_moment(entry["taken"]),
        quiesced=entry["quiesced"],
        digest=entry["digest"],
        size_bytes=entry["bytes"],
        outcome=SnapshotState[entry["outcome"]] if entry["outcome"] else None,
        message=entry["message"],
    )


def _snapshot_entry(note: SnapshotNote | None) -> Mapping[str, Any] | None:
    if note is None:
        return None
    return {
        "id": note.id,
        "taken": note.taken_time.isoformat() if note.taken_time else "",
        "quiesced": note.quiesced,
        "digest": note.digest,
        "bytes": note.size_bytes,
        "outcome": note.outcome.name if note.outcome else "",
        "message": note.message,
    }


def _entry(part: KnownPart) -> Mapping[str, Any]:
    return {
        "name": part.wanted.name,
        "generation": part.wanted.generation,
        "end": part.wanted.window.end.isoformat(),
        "present": part.present,
        "notes": {
            uid: {
                "ready": note.ready_time.isoformat() if note.ready_time else "",
                "powered_off": note.powered_off,
                "boots": note.boots,
                "starting": note.starting,
                "paused": note.paused,
                "was_ready": note.was_ready.isoformat() if note.was_ready else "",
                "saved": _move_entry(note.saved),
                "restored": _move_entry(note.restored),
                "snapshot": _snapshot_entry(note.snapshot),
                "frozen": note.frozen,
            }
            for uid, note in part.notes.items()
        },
        "record": b64encode(part_to_proto(part.wanted).SerializeToString()).decode(),
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != _SCHEMA:
            raise ValueError(f"schema {document['schema']}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("state.unreadable", file=str(path), problem=str(error))
        return None
    return dict(document)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    _put(path, json.dumps({"schema": _SCHEMA, **document}, indent=1).encode())


def _put(path: Path, octets: bytes) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(0o600)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
