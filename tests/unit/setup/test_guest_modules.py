"""Kernel modules load in the order in which they need each other."""

from setup.guest_image import module_order

DEPENDS = {
    "virtio": [],
    "ring": [],
    "pci": ["virtio", "ring"],
    "net": ["virtio", "failover"],
    "failover": [],
}


def test_each_module_comes_after_all_it_needs_and_once() -> None:
    order = module_order(["pci", "net"], DEPENDS)
    assert sorted(order) == sorted(DEPENDS)
    for name in order:
        assert all(order.index(needed) < order.index(name) for needed in DEPENDS[name])


def test_what_nobody_wants_is_left_out() -> None:
    assert module_order(["failover"], DEPENDS) == ["failover"]
