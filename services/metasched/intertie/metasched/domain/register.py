"""The decision register: write-once, raced by coordinators and by participants in doubt."""

from collections.abc import Collection

from intertie.metasched.domain.commit import TxRecord


def may_ask(tx: TxRecord | None, site: str, known_sites: Collection[str]) -> bool:
    """A site may ask for, and race, the decision on what it takes part in.

    Of a transaction that nobody knows, any known site may: it holds a part that names this
    register, and an ABORT on record keeps a coordinator that comes back from committing it.
    """
    return site in tx.parts if tx is not None else site in known_sites
