"""The list of Debian packages."""

from setup.debian import installed, wanted_packages


def test_comments_and_empty_lines_are_no_packages() -> None:
    assert wanted_packages("# why\nspin\n\ngcc # compiles\n") == ["spin", "gcc"]


def test_what_an_installed_package_provides_is_there_too() -> None:
    listing = (
        "gcc\tinstalled\tc-compiler, gcc-x86-64-linux-gnu (= 4:12.2.0-3)\n"
        "nodejs\tinstalled\tnodejs-dev, npm\n"
        "spin\tconfig-files\t\n"
        "yarnpkg\thalf-configured\tyarn\n"
    )
    assert installed(listing) == {
        "gcc", "c-compiler", "gcc-x86-64-linux-gnu", "nodejs", "nodejs-dev", "npm",
    }  # fmt: skip
