"""The pages for those who change the package: their picture is that of the imports, what they name exists."""

import re

import pytest
from places import ROOT
from test_imports import ALONE, LAYERS, PACKAGE, modules, rooms_imported

import ooftorch

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
# Several rooms that the picture has as one.
TOGETHER = {name: "base" for name in LAYERS[0]} | {name: "records" for name in LAYERS[2]}


def drawn(page):
    """Arrows of the picture in the page."""
    (picture,) = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)
    return set(re.findall(r"(\w+) --> (\w+)", picture))


def imported():
    """Arrows that the imports make between rooms, but for those to what everyone may use."""
    arrows = {
        (TOGETHER.get(room, room), TOGETHER.get(other, other))
        for room, paths in modules().items()
        if room not in ALONE
        for path in paths
        for other in rooms_imported(path)
    }
    return {(a, b) for a, b in arrows if a != b and b != "base"}


def test_the_picture_is_that_of_the_imports():
    assert drawn(PAGE) == imported()


def test_a_picture_that_lacks_an_arrow_or_has_one_too_many_is_not():
    without = PAGE.replace("    fitting --> optim\n", "")
    more = PAGE.replace("    fitting --> optim\n", "    fitting --> optim\n    optics --> optim\n")
    assert drawn(without) < imported() < drawn(more)


def test_the_layers_are_those_of_the_import_test():
    (line,) = re.findall(r"`base` <- (.*?)\. A room imports", PAGE, re.DOTALL)
    layers = [set(re.findall(r"`(\w+)`", layer)) for layer in line.split("<-")]
    expected = [{TOGETHER.get(room, room) for room in layer} for layer in LAYERS[1:]]
    assert layers == expected


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|toml|json))`", text))
    named |= {target for target in re.findall(r"\]\(([^)#:]+)\)", text)}
    missing = {name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()}
    assert not missing


def test_what_the_recipes_name_exists():
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    recipes = PAGE[PAGE.index("## Recipes") : PAGE.index("## What every part keeps to")]
    for name in re.findall(r"`([A-Za-z_]+)`", recipes):
        assert re.search(rf"\b{name}\b", source) or name in ooftorch.__all__, name
