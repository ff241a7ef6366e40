"""A store that is short of room, or not."""

from dataclasses import dataclass

from intertie.common.errors import LedgerFull


@dataclass
class FakeRoom:
    short: bool = False

    def check(self) -> None:
        if self.short:
            raise LedgerFull("80 of 100 MiB")
