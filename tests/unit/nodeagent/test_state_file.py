"""What an agent keeps on its own disk."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.common.values import replace
from intertie.nodeagent.adapters.state_file import StateFile
from intertie.nodeagent.domain.power import MemoryMove
from intertie.nodeagent.domain.reconcile import Kept, KnownPart, Note
from tests.unit.nodeagent.parts import A_UID, NOW, PART


@pytest.mark.parametrize("complete", [False, True])
def test_what_was_kept_is_found_again(tmp_path: Path, complete: bool) -> None:
    moved = MemoryMove(bytes=7, duration=timedelta(seconds=1.25))
    note = Note(ready_time=NOW, saved=moved, restored=replace(moved, bytes=9), frozen=True)
    part = KnownPart(wanted=PART, present=False, notes={A_UID: note})
    kept = Kept(parts={PART.uid: part}, complete=complete)
    StateFile(tmp_path).save(kept)
    assert StateFile(tmp_path).load() == kept


def test_a_file_from_before_there_was_a_mark_is_complete(tmp_path: Path) -> None:
    StateFile(tmp_path).save(Kept(parts={}))
    path = tmp_path / "parts.json"
    document = json.loads(path.read_text())
    del document["complete"]
    path.write_text(json.dumps(document))
    assert StateFile(tmp_path).load() == Kept(parts={})


def test_a_save_that_fails_leaves_what_was_saved_before(tmp_path: Path) -> None:
    StateFile(tmp_path).save(Kept(parts={}))
    (tmp_path / "parts.new").mkdir()
    with pytest.raises(IsADirectoryError):
        StateFile(tmp_path).save(Kept(parts={PART.uid: KnownPart(wanted=PART)}))
    assert StateFile(tmp_path).load() == Kept(parts={})
