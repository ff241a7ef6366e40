import gc

from intertie.common.intervals import Window
from intertie.common.part_spec import PartNic
from intertie.common.values import Struct
from tests.unit.common.builders import NOW


class Tree(Struct, frozen=True):
    leaves: tuple[PartNic, ...]
    window: Window


def test_the_collector_of_cycles_passes_over_values_and_tuples_of_them() -> None:
    """A ledger of 100,000 parts is millions of them, and a full collection would walk them all."""
    nic = PartNic(network="lan", mac="02:00:00:00:00:01", address="10.1.0.10/24")
    tree = Tree(leaves=(nic, nic), window=Window(NOW, NOW.replace(year=NOW.year + 1)))
    gc.collect()
    assert not gc.is_tracked(nic)
    assert not gc.is_tracked(tree)
    assert not gc.is_tracked(tree.leaves)
