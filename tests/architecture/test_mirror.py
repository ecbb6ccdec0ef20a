"""The tests mirror the tree: no folder of tests without its package, no big module that no test looks at."""

from __future__ import annotations

from tests.architecture.sources import PACKAGES, ROOT, Source, read_sources

BIG = 100  # lines; smaller modules are tested through those that use them


def test_each_folder_of_tests_mirrors_a_package() -> None:
    strays = [
        folder.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for folder in (ROOT / "tests" / package).rglob("*")
        if folder.is_dir() and folder.name != "__pycache__"
        if not (ROOT / folder.relative_to(ROOT / "tests")).is_dir()
    ]
    assert strays == []


def test_each_big_module_is_looked_at_by_a_test() -> None:
    """By a namesake, a test that imports it or what stands on it, or the folder of tests that mirrors its folder."""
    named = {name for test in read_sources("tests") for name, _ in test.imported()}
    driven = [source for source in read_sources() if source.module in named or is_driven_from_outside(source)]
    known = named | {name for source in driven for name, _ in source.imported()}
    big = [source for source in read_sources() if source.text.count("\n") >= BIG]
    assert len(big) > 50, "the rule looks at something"
    assert [source.path for source in big if not is_looked_at(source, known)] == []


def is_driven_from_outside(source: Source) -> bool:
    """Pages, all opened by test_admin_pages, and commands, which tests call by their name."""
    return ".admin" in source.module or ".commands" in source.module


def is_looked_at(source: Source, known: set[str]) -> bool:
    package, _, name = source.module.rpartition(".")
    folder = ROOT / "tests" / package.replace(".", "/")
    is_mirrored = "." in package and (folder.is_dir() or package in known)  # or its package speaks for it
    has_namesake = any(folder.glob(f"test_*{name}*.py"))
    return is_mirrored or has_namesake or source.module in known or is_driven_from_outside(source)
