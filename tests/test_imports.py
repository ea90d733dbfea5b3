"""The order of the modules, and what each may know: read from the source, not from a run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ooftorch"

# What light meets on its way; a module imports only those before it.
ORDER = [
    "errors",
    "zernike",
    "optics",
    "illumination",
    "telescope",
    "surface",
    "farfield",
    "receiver",
    "likelihood",
    "device",
    "layout",
    "model",
    "posterior",
    "bfgs",
    "descent",
    "prepare",
    "result",
    "fit",
    "resample",
    "objective",
    "methods",
    "minimize",
    "optimizer",
    "truth",
    "observation",
    "scan",
    "noise",
    "simulate",
    "io",
    "report",
    "plot",
    "describe",
    "cli",
]
CORE = ORDER[: ORDER.index("fit") + 1]
ALONE = ["__init__", "__main__", "reference"]


def modules() -> dict[str, list[Path]]:
    """Every module of the package, `io` as one."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.setdefault(parts[0], []).append(path)
    return found


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """Dotted names that a file imports when it runs; what only a type checker sees does not count."""
    names: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef) and not inside_functions:
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


def test_every_module_has_its_place():
    assert sorted(modules()) == sorted(ORDER + ALONE)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module):
    allowed = {*ORDER[: ORDER.index(module)], module}
    for path in modules()[module]:
        own = {name.split(".")[1] for name in imports(path) if name.startswith("ooftorch.")}
        own -= {"__version__"}
        assert own <= allowed, f"{path.name} imports {own - allowed}"


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_only_numpy_scipy_and_torch(module):
    for path in modules()[module]:
        foreign = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        assert foreign <= {"numpy", "scipy", "torch", "ooftorch"}


@pytest.mark.parametrize(
    ("package", "homes"), [("astropy", {"io"}), ("matplotlib", {"plot"}), ("click", {"cli"})]
)
def test_who_may_import_what(package, homes):
    users = {
        module
        for module, paths in modules().items()
        for path in paths
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users == homes


def test_the_reference_shares_no_code():
    assert not any(name.startswith("ooftorch") for path in modules()["reference"] for name in imports(path))


def test_the_core_imports_without_astropy_and_matplotlib():
    """In an environment that has only NumPy, SciPy and torch: the others are made impossible to import."""
    block = "import sys; sys.modules.update(dict.fromkeys(['astropy', 'matplotlib', 'click', 'tqdm'])); "
    run = "; ".join(f"import ooftorch.{module}" for module in CORE)
    subprocess.run([sys.executable, "-c", block + run], check=True)


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "scipy", "astropy", "matplotlib"}
    code = f"import sys, ooftorch; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_function_wins_over_its_module():
    code = "import ooftorch; from ooftorch.fit import fit; import ooftorch.fit; assert ooftorch.fit is fit"
    subprocess.run([sys.executable, "-c", code], check=True)
