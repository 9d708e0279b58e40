"""The documentation holds together: links lead somewhere, commands exist, tables match the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from switchback.settings import PREFIX, Settings

ROOT: Final = Path(__file__).parent.parent
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TARGET: Final = re.compile(r"^([a-z]+):", re.MULTILINE)
_HIDDEN_OR_BUILT: Final = re.compile(r"(^|/)(\.|node_modules|build|dist)")


def pages() -> Iterator[Path]:
    for page in sorted(ROOT.rglob("*.md")):
        if not _HIDDEN_OR_BUILT.search(page.relative_to(ROOT).as_posix()):
            yield page


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[str]:
    blocks = [body for language, body in _FENCE.findall(page.read_text()) if language == "sh"]
    return [line for body in blocks for line in body.splitlines() if line.strip()]


def table_rows(page: Path) -> list[str]:
    """The first cell of every row."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows]


@pytest.mark.parametrize("page", list(pages()), ids=named)
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leaves the repository"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=named)
def test_every_shell_command_exists(page: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    lines = commands(page)
    assert lines
    for line in lines:
        program, *arguments = line.split()
        if program == "make":
            assert set(arguments) <= targets, f"{line}: no such target"
        elif program == ".venv/bin/pytest":
            assert all((ROOT / argument).exists() for argument in arguments), line
        else:
            pytest.fail(f"{line}: neither make nor pytest")


def test_every_setting_is_documented_and_no_other() -> None:
    first_cells = " ".join(table_rows(ROOT / "docs/operations.md"))
    documented = set(re.findall(rf"`({PREFIX}\w+)`", first_cells))
    settings = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    assert documented == settings


def test_every_dependency_is_argued_for_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    declared = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    declared += [requirement for extra in extras for requirement in extra]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in declared}
    cells = table_rows(ROOT / "docs/dependencies.md")
    argued = {name.strip() for cell in cells for name in cell.split(",")} - {"package"}
    assert argued == names - {"switchback"}


def test_every_decision_is_listed_in_order() -> None:
    directory = ROOT / "docs/decisions"
    files = sorted(page.name for page in directory.glob("[0-9]*.md"))
    listed = re.findall(r"\(([0-9][^)]*\.md)\)", (directory / "README.md").read_text())
    assert listed == files
    assert [int(name[:3]) for name in files] == list(range(1, len(files) + 1))


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("[0-9]*.md")), ids=named)
def test_every_decision_says_context_decision_and_consequences(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.name[:3])}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_every_word_is_defined_once() -> None:
    words = table_rows(ROOT / "docs/words.md")
    assert len(words) > 20
    assert len(words) == len(set(words))


@pytest.mark.parametrize("page", list(pages()), ids=named)
def test_every_test_that_is_named_exists(page: Path) -> None:
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
