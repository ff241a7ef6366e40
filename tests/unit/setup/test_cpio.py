"""The archive that the kernel unpacks at boot."""

from setup.cpio import Archive


def headers(packed: bytes) -> list[tuple[str, int, bytes]]:
    """Path, mode and content of each entry, read by the format's description alone."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert packed[at : at + 6] == b"070701"
        numbers = [int(packed[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = numbers[6], numbers[11]
        name = packed[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) // 4 * 4
        content = packed[at : at + size]
        at = (at + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, numbers[1], content))


def test_folders_come_before_what_is_in_them() -> None:
    archive = Archive()
    archive.add_file("usr/bin/tool", b"#!", mode=0o755)
    archive.add_link("bin/sh", "/bin/busybox")
    assert headers(archive.pack()) == [
        ("bin", 0o40755, b""),
        ("bin/sh", 0o120777, b"/bin/busybox"),
        ("usr", 0o40755, b""),
        ("usr/bin", 0o40755, b""),
        ("usr/bin/tool", 0o100755, b"#!"),
    ]


def test_a_folders_first_mode_stays() -> None:
    archive = Archive()
    archive.add_folder("root", mode=0o700)
    archive.add_file("root/file", b"")
    assert headers(archive.pack())[0] == ("root", 0o40700, b"")


def test_the_order_of_adding_does_not_show() -> None:
    one, other = Archive(), Archive()
    one.add_file("a", b"1")
    one.add_file("b", b"2")
    other.add_file("b", b"2")
    other.add_file("a", b"1")
    assert one.pack() == other.pack()
