"""The pages about data: they name every data set and configuration there is, and lead to files that exist."""

import re
from pathlib import Path

import pytest

from unilseg_jax.input_pipeline import catalogue

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"docs/data.md": ROOT / "docs" / "data.md", "data/README.md": ROOT / "data" / "README.md"}


def listed_sets(page: Path) -> dict[str, set[str]]:
    """Returns the configurations that the page's table of sets names; a row without a name belongs to the one above."""
    sets: dict[str, set[str]] = {}
    name = None
    for row in re.findall(r"^\|(.*)\|$", page.read_text(encoding="utf-8"), re.MULTILINE):
        first, *others = (cell.strip() for cell in row.split("|"))
        link = re.fullmatch(r"\[`(\w+)`\]\([\w./]+/README\.md\)", first)
        name = link[1] if link else name if not first else None
        if name:
            sets.setdefault(name, set()).update(re.findall(r"`([^`]+)`", others[0]))
    return sets


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_data_set_and_configuration_is_named(page):
    there = {
        name: {config.name for config in catalogue.load_builder(name).BUILDER_CONFIGS}
        for name in catalogue.builder_names()
    }
    assert listed_sets(page) == there


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", catalogue.builder_names())
def test_every_data_set_has_a_page_with_its_command_and_licence(name):
    text = (catalogue.BUILDERS / name / "README.md").read_text(encoding="utf-8")
    assert f"python -m unilseg_jax.prepare {name} " in text
    assert "licence" in text
    assert "https://" in text or "http://" in text


@pytest.mark.parametrize("name", catalogue.builder_names())
def test_every_data_set_has_a_stand_in(name):
    assert callable(catalogue.load_stand_in(name).write)
