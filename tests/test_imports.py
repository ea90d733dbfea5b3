"""Who may import whom: layers of rooms, read from the source and not from a run."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from places import EXAMPLE, ROOT

import ooftorch

PACKAGE = Path(ooftorch.__file__).parent

# A room imports from its own and from every layer before it; rooms of one layer do not know each other.
LAYERS = [
    {"errors", "units", "device", "files", "inputs"},
    {"optim", "optics"},
    {"observation", "result", "scans", "truth"},
    {"fitting", "simulation"},
    {"io", "reporting"},
    {"cli"},
]
# What everyone may use, and the records, are single modules that may know each other.
TOGETHER = [LAYERS[0], LAYERS[2]]
ALONE = {"__init__", "__main__", "reference"}
ROOMS = sorted(room for layer in LAYERS for room in layer)


def modules() -> dict[str, list[Path]]:
    """Every module of the package, by room."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found.setdefault(path.relative_to(PACKAGE).with_suffix("").parts[0], []).append(path)
    return found


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports when it runs; what only a type checker sees does not count."""
    names: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module == "ooftorch":
                names.update(f"ooftorch.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text()))
    return names


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("ooftorch.")} - {"__version__"}


def allowed(room: str) -> set[str]:
    """Rooms that a room may import from."""
    found = {room}
    for layer in LAYERS:
        if room in layer:
            return found | (layer if layer in TOGETHER else set())
        found |= layer
    raise ValueError(room)


def test_every_module_has_its_room():
    assert set(modules()) == {*ROOMS, *ALONE}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_respect_the_layers(room):
    for path in modules()[room]:
        assert rooms_imported(path) <= allowed(room), path


def test_optim_and_optics_do_not_know_each_other():
    for one, other in (("optim", "optics"), ("optics", "optim")):
        assert not any(other in rooms_imported(path) for path in modules()[one])


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("torch", {"device", "optim", "optics", "fitting", "simulation"}),
        ("astropy", {"io"}),
        ("matplotlib", {"reporting"}),
        ("click", {"cli"}),
    ],
)
def test_who_may_import_what(package, homes):
    users = {
        room
        for room, paths in modules().items()
        for path in paths
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users == homes


def test_the_reference_shares_no_code():
    assert not any(name.startswith("ooftorch") for path in modules()["reference"] for name in imports(path))


@pytest.mark.slow
def test_the_numerics_import_without_astropy_and_matplotlib():
    """In an environment that has only NumPy, SciPy and torch: the others are made impossible to import."""
    block = "import sys; sys.modules.update(dict.fromkeys(['astropy', 'matplotlib', 'click', 'tqdm'])); "
    numerics = ("device", "optim", "optics", "observation", "result", "truth", "fitting", "simulation")
    names = [
        ".".join(["ooftorch", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        for room in numerics
        for path in modules()[room]
    ]
    subprocess.run([sys.executable, "-c", block + "; ".join(f"import {name}" for name in names)], check=True)


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "numpy", "scipy", "astropy", "matplotlib"}
    code = f"import sys, ooftorch; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.slow
def test_a_stored_fit_is_read_reported_and_drawn_without_torch(tmp_path):
    """And so are observations and telescopes: torch is made impossible to import."""
    code = """if True:
        import sys
        sys.modules["torch"] = None
        import ooftorch
        from ooftorch.optics import telescopes
        from ooftorch.reporting.describe import describe_observation, describe_telescope
        result = ooftorch.read_fit(sys.argv[1])
        ooftorch.report(result), ooftorch.summary(result), ooftorch.verdict(result)
        ooftorch.plot_aperture(result), ooftorch.plot_beams(result)
        ooftorch.write_fit(result, sys.argv[3])
        observation = ooftorch.read(sys.argv[2])
        describe_observation(observation)
        ooftorch.write(observation, sys.argv[4])
        for name in telescopes.names():
            describe_telescope(telescopes.load(name))
    """
    files = [ROOT / "tests" / "data" / "fit-layout-1.fits", EXAMPLE, tmp_path / "a.fits", tmp_path / "b.fits"]
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True)


def public_functions() -> list[str]:
    return [name for name in ooftorch.__all__ if name[0].islower()]


def test_no_module_has_the_name_of_a_public_function():
    names = {path.parent.name if path.stem == "__init__" else path.stem for path in PACKAGE.rglob("*.py")}
    assert names.isdisjoint(public_functions())


def test_public_names_are_what_they_say_whatever_was_imported_before():
    for path in PACKAGE.rglob("*.py"):
        dotted = ".".join(["ooftorch", *path.relative_to(PACKAGE).with_suffix("").parts])
        if not dotted.endswith("__main__"):
            importlib.import_module(dotted.removesuffix(".__init__"))
    for name in public_functions():
        assert callable(getattr(ooftorch, name)), name
