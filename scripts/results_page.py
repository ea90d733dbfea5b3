"""Tools of the study scripts: description of the machine, tables, and the sections of the results page."""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
PAGE = RESULTS / "README.md"


def machine() -> dict:
    """Machine and versions with which the numbers were measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy")},
    }


def machine_text(m: dict) -> str:
    """Format the machine as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return (
        f"{m['cores']} cores ({m['processor']}), {m['threads']} thread{'s' * (m['threads'] != 1)}, "
        f"Python {m['python']}, {versions}"
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(page: Path, name: str, script: str, text: str) -> None:
    """Put a text between the marks of its name in a page."""
    first, last = f"<!-- {name}: written by scripts/{script} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(first)
    _, ended, after = rest.partition(last)
    if not (found and ended):
        raise SystemExit(f"{page} has no marks {first} and {last} to write between")
    page.write_text(f"{before}{first}\n{text}\n{last}{after}")


def run(
    name: str,
    measure: Callable[[bool], dict],
    section: Callable[[dict], str],
    picture: Callable[[dict], Figure],
    tune: Callable[[], dict] | None = None,
) -> None:
    """Command line of a study: measure, print, and write RESULTS/name.json, name.png and its section.

    Parameters
    ----------
    measure : callable
        Gets whether a short form is wanted; returns what was found, as JSON has it.
    section, picture : callable
        Of what was found: the text for the page, and the picture.
    tune : callable, optional
        Measures on other data, for whoever changes the fit; returns what `measure` does.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a short form; write nothing")
    parser.add_argument("--again", action="store_true", help="only text and picture of the last run")
    if tune is not None:
        parser.add_argument("--tune", action="store_true", help="other data, to tune on; write nothing")
    options = parser.parse_args()
    is_tuning = tune is not None and options.tune
    target = RESULTS / f"{name}.json"
    if options.again:
        found = json.loads(target.read_text())
    else:
        begin = time.perf_counter()
        found = tune() if is_tuning else measure(options.quick)
        found = {**found, "seconds": time.perf_counter() - begin, "machine": machine()}
    text = (
        f"{section(found)}\n\n`python scripts/{name}.py`: {found['seconds']:.0f} s on "
        f"{machine_text(found['machine'])}.\n\n![{name}]({name}.png)"
    )
    print(text)
    if options.quick or is_tuning:
        return
    target.write_text(json.dumps(found, indent=1) + "\n")
    picture(found).savefig(RESULTS / f"{name}.png", dpi=120)
    write_section(PAGE, name, f"{name}.py", text)
