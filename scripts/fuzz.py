"""Feed the commands with damaged files and senseless options, and count what comes of it.

Every answer has to be a result, or one line and status 2: no traceback, no hang, no warning beside the line,
no file but what was asked for, and no more memory than the input is worth. The short form of this is
tests/cli/test_damaged_input.py, which draws from the same damages.

    python scripts/fuzz.py --n 10000                 about 15 minutes on one core
    python scripts/fuzz.py --first 4711 --n 1 --keep here    the files of one input, and what it does
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np

import ooftorch
from ooftorch.cli.command import main as run_command
from ooftorch.errors import InputError
from ooftorch.reporting import drawing
from ooftorch.simulation.noise import Noise
from ooftorch.simulation.simulator import Simulator

# Longest line, seconds, and bytes of address space beyond what the process has when it begins.
MAX_LINE, MAX_SECONDS, MAX_BYTES = 320, 20, 3 * 2**30
# Inputs for one process, which holds what matplotlib and torch keep.
CHUNK = 500

TELESCOPE = "aca7m"
FIT = ["--nuisance", "none", "--amplitude-order", "0", "--likelihood", "gaussian"]


class Case(NamedTuple):
    """One damaged input.

    Attributes
    ----------
    form : kind of the file that is damaged, or the command whose options are.
    files : content by name; a word for what is no regular file.
    arguments : of the command.
    """

    form: str
    files: dict[str, bytes | str]
    arguments: list[str]


# ------------------------------------------------------------------------------------------- valid files

_TELESCOPES = {
    "prime": """
radius_m = 3.5
frequency_hz = 230e9
description = "mine"
good_surface_rms_um = 25.0
[optics]
type = "prime-focus"
focal_length_m = 2.5
[blockage]
inner_radius_m = 0.4
[blockage.legs]
shape = "x"
half_width_m = [0.05, 0.06]
radius_m = [0.0, 2.0]
[[blockage.holes]]
x_m = 1.0
y_m = -0.5
radius_m = 0.1
[illumination]
model = "tophat"
radius_m = 3.3
[focus]
scale_error = 0.03
shift_error_m = 1e-3
""",
    "cassegrain": """
radius_m = 3.5
frequency_hz = 230e9
[optics]
type = "cassegrain"
focal_length_m = 2.5
effective_focal_length_m = 56
path_correction = [[0,0,0], [0,0,0], [0,0,0], [0,0,0], [0,0,1e-5], [0,0,0], [0,1e-3,1e-4], [0,0,0]]
[blockage]
inner_radius_m = 0.3
[blockage.legs]
shape = "plus"
half_width_m = 0.05
outer_radius_m = 2.5
shadow_deg = 10
[illumination]
model = "gaussian"
taper_db = -11
""",
    "offset": """
radius_m = 3.5
frequency_hz = 230e9
[optics]
type = "offset-gregorian"
focal_length_m = 4.2
effective_focal_length_m = 13.3
vertex_offset_m = 3.8
subreflector_angle_deg = 36.7
feed_angle_deg = 17.9
[illumination]
model = "squashed"
taper_db = -14
""",
    "shaped": """
radius_m = 3.5
frequency_hz = 230e9
[optics]
type = "shaped"
path = { z4 = -0.16, z12 = 0.02 }
focal_length_m = 2.5
[illumination]
model = "pedestal"
taper_db = -12
""",
}

_OBSERVATION = """
[observation]
telescope = "TELESCOPE"
frequency_hz = 100e9
object = "3C84"
date_obs = 2020-02-03
mean_el_deg = 45.0
sky = "telescope"
scans = "rows"
integration_s = 0.1
speed_arcsec_s = 20
[[map]]
file = "map0.dat"
dz_m = 0.0
missing = -99
sigma = 1e-3
[[map]]
file = "map1.dat"
dz_m = -1.5e-3
sigma = 1e-3
[[map]]
file = "map2.dat"
dz_m = 1.5e-3
sigma = 1e-3
smear_arcsec = 1.0
"""


def make_valid(folder: Path) -> dict[str, bytes]:
    """Make small valid files of every format, by name."""
    simulator = Simulator(TELESCOPE, reach=3.0, step=0.6, n=64, noise=Noise(snr=100.0))
    observation = simulator.observe({"z3": 0.4, "z4": -0.3}, seed=1)
    for layout in ("oof", "pyoof", "image"):
        ooftorch.write(observation, folder / f"{layout}.fits", layout=layout)
    result = ooftorch.fit(observation, order=2)
    ooftorch.write_fit(result, folder / "fit.fits")
    (folder / "summary.json").write_text(json.dumps(ooftorch.summary(result)))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    side = round(np.sqrt(observation.maps[0].x.size))
    for i, m in enumerate(observation.maps):
        rows = np.stack([m.x, m.y, m.power]).T
        files[f"text{i}"] = "".join(f"{x:.9e} {y:.9e} {p:.9e}\n" for x, y, p in rows).encode()
        ends = " ".join(f"{a:.10e}" for a in (m.x.min(), m.y.min(), m.x.max(), m.y.max()))
        head = f"made here\nFREQUENCY: 100.0 GHz\n++++\n1\n1 3 2 1\n0 0\n{ends}\n{side} {side} 0\n"
        field = "".join(f"{np.sqrt(abs(p)):.9e} 0.0 0.0 0.0\n" for p in m.power)
        files[f"grid{i}"] = (head + field).encode()
    files |= {f"{name}.toml": text.encode() for name, text in _TELESCOPES.items()}
    files["z.txt"] = b"# a surface\nz3 0.4\nz4 = -0.3\nz12 0.1\n"
    files["z.json"] = b'{"z3": 0.4, "z4": -0.3, "z12": 0.1}'
    return files


# --------------------------------------------------------------------------------------------- damages

_NUMBERS = [
    *("0", "-1", "1", "2", "7", "-0.0", "1e300", "-1e300", "1e-300", "1e39", "1e18", "1e9", "-1e9", "1e-9"),
    *("nan", "inf", "-inf", "999999999999", "2147483648", "1" + 400 * "0", "0.5", "1e5", "100", "64", "1e3"),
]
_WORDS = [
    *("", "text", "true", '"text"', "'text'", "[]", "{}", "[1, 2]", "1979-05-27", "0x1F", '"\\u0007"', "T"),
    *("z0", "gbt", "'" + 500 * "a" + "'", "\x1b[31m", "\u00fc", "../../etc", "'m'", "'deg'", "None", "1e"),
]


def flip_bits(rng: random.Random, data: bytes, first: int = 0) -> bytes:
    """Flip up to eight bits."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if len(damaged) > first:
            damaged[rng.randrange(first, len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(rng: random.Random, data: bytes) -> bytes:
    """Cut the file off."""
    return data[: rng.randrange(len(data))]


def fill(rng: random.Random, data: bytes) -> bytes:
    """Overwrite a piece with one byte, with other bytes, or with a piece from elsewhere."""
    first, n = rng.randrange(len(data)), rng.choice([1, 8, 80, 2880])
    other = rng.randrange(len(data))
    some = rng.choice([b"\0" * n, b"\xff" * n, b" " * n, data[other : other + n], rng.randbytes(min(n, 80))])
    return data[:first] + some + data[first + len(some) :]


def find_headers(data: bytes) -> list[tuple[int, int]]:
    """Begin and end, in bytes, of the headers of a FITS file."""
    found, at = [], 0
    while at < len(data):
        if data[at : at + 9] in (b"SIMPLE  =", b"XTENSION="):
            begin = at
            while at < len(data) and not re.search(rb"^(.{80})*END {77}", data[at : at + 2880], re.DOTALL):
                at += 2880
            found.append((begin, min(at + 2880, len(data))))
        at += 2880
    return found


def change_card(rng: random.Random, data: bytes) -> bytes:
    """Spoil one card of a header: another value or key, gone, twice, or in the place of another."""
    begin, end = rng.choice(find_headers(data))
    cards = [data[i : i + 80] for i in range(begin, end, 80)]
    used = [i for i, card in enumerate(cards) if card[8:10] == b"= "]
    i = rng.choice(used)
    key, value = cards[i][:8], cards[i][10:]
    new = rng.choice([*_NUMBERS, *_WORDS]).upper().encode("utf-8", "replace")
    match rng.randrange(8):
        case 0:
            cards[i] = b" " * 80
        case 1:
            j = rng.choice(used)
            cards[i], cards[j] = cards[j], cards[i]
        case 2:
            cards[i] = rng.choice(cards)
        case 3:
            cards[i] = rng.choice([b"TFIELDS ", b"NAXIS   ", b"TNULL1  ", b"TDIM1   "]) + b"= " + value
        case 4:
            text = rng.choice(
                [b"'1PD(99999999)'", b"'999999999D'", b"'D'", b"'1X'", b"'8A'", b"'1M'", b"'I'"]
            )
            cards[i] = key + b"= " + text
        case _:
            cards[i] = key + b"= " + new
    cards = [card[:80].ljust(80) for card in cards]
    return data[:begin] + b"".join(cards) + data[end:]


def change_samples(rng: random.Random, data: bytes) -> bytes:
    """Overwrite numbers among the data of a FITS file."""
    number = rng.choice([1e300, -1e300, np.inf, np.nan, 0.0, -1.0, 1e-300, 1e50, 1e-50, 1e20, 1e6, 3.0])
    begins = [end + 8 * rng.randrange(6) for _, end in find_headers(data)]
    first = rng.choice([rng.randrange(0, len(data) // 8) * 8, *begins])
    step, n = rng.choice([(1, 1), (1, 20), (5, 121), (1, 700), (6, 121)])
    damaged = bytearray(data)
    headers = find_headers(data)
    for at in range(first, min(first + 8 * step * n, len(data) - 7), 8 * step):
        if not any(begin <= at < end for begin, end in headers):
            damaged[at : at + 8] = struct.pack(">d", number)
    return bytes(damaged)


def rearrange(rng: random.Random, data: bytes) -> bytes:
    """Drop, repeat or swap HDUs, or blocks."""
    begins = [begin for begin, _ in find_headers(data)]
    if rng.random() < 0.3:
        begins = list(range(0, len(data), 2880))
    pieces = [data[a:b] for a, b in zip(begins, [*begins[1:], len(data)], strict=True)]
    i, j = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    match rng.randrange(3):
        case 0:
            del pieces[i]
        case 1:
            pieces.insert(i, pieces[j])
        case _:
            pieces[i], pieces[j] = pieces[j], pieces[i]
    return b"".join(pieces)


def change_words(rng: random.Random, data: bytes) -> bytes:
    """Replace a number or a word of a text."""
    text = data.decode()
    tokens = list(re.finditer(r"[^\s,=\[\]{}]+", text))
    if not tokens:
        return data
    numbers = [token for token in tokens if re.match(r"[-+.\d]", token[0])] or tokens
    token = rng.choice(numbers if rng.random() < 0.8 else tokens)
    new = rng.choice(_NUMBERS if rng.random() < 0.7 else _WORDS)
    return (text[: token.start()] + new + text[token.end() :]).encode()


def change_lines(rng: random.Random, data: bytes) -> bytes:
    """Drop, repeat, swap or spoil lines of a text."""
    lines = data.decode().splitlines()
    if not lines:
        return data
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[i]
        case 1:
            lines.insert(i, lines[j])
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines.insert(i, rng.choice([5000 * "[", "a = " + 3000 * "[", 900 * "x", "\x00", "[map]", "'''"]))
        case _:
            lines[i] += rng.choice([" 1", " # \u2603", "\r", "]", '"', " 1e300", ", "])
    return "\n".join(lines).encode()


_OF_FITS = [change_card, change_card, change_card, change_samples, flip_bits, truncate, fill, rearrange]
_OF_TEXT = [change_words, change_words, change_words, change_lines, flip_bits, truncate, fill]


def damage(rng: random.Random, data: bytes) -> bytes | str:
    """Damage a file once, sometimes twice, or put something in its place that is no file of data."""
    if rng.random() < 0.01:
        return rng.choice(["pipe", "directory", "loop", "closed", "zero"])
    ways = _OF_FITS if data.startswith(b"SIMPLE") else _OF_TEXT
    for _ in range(1 + (rng.random() < 0.2)):
        if not data:
            return data
        with contextlib.suppress(UnicodeDecodeError, IndexError):
            data = rng.choice(ways)(rng, data)
    return data


# ---------------------------------------------------------------------------------------------- inputs


def _use(rng: random.Random, name: str) -> list[str]:
    """Arguments that read an observation, with a fit now and then."""
    chance = rng.random()
    if chance < 0.9:
        return ["info", name]
    how = FIT if chance < 0.97 else ["--likelihood", rng.choice(["auto", "cauchy"])]
    return ["fit", name, "--order", rng.choice("12"), *how, "--telescope", TELESCOPE, "--out", "out"]


def _draw_fits(rng: random.Random, valid: dict[str, bytes]) -> Case:
    form = rng.choice(["oof", "pyoof", "image"])
    return Case(form, {"bad.fits": damage(rng, valid[f"{form}.fits"])}, _use(rng, "bad.fits"))


def _draw_toml(rng: random.Random, valid: dict[str, bytes]) -> Case:
    kind = rng.choice(["text", "grid", "image"])
    observation = _OBSERVATION.replace("TELESCOPE", rng.choice([TELESCOPE, "my.toml"]))
    if kind == "grid":
        observation = observation.replace('sky = "telescope"', 'sky = "source"')
    files: dict[str, bytes | str] = {"bad.toml": observation.encode(), "my.toml": valid["cassegrain.toml"]}
    for i in range(3):
        files[f"map{i}.dat"] = valid["image.fits"] if kind == "image" else valid[f"{kind}{i}"]
    broken = rng.choice(["bad.toml", "map0.dat", "map1.dat"])
    content = files[broken]
    assert isinstance(content, bytes)
    files[broken] = damage(rng, content)
    return Case("toml" if broken == "bad.toml" else f"toml: {kind}", files, _use(rng, "bad.toml"))


def _draw_result(rng: random.Random, valid: dict[str, bytes]) -> Case:
    files = {"fit.fits": damage(rng, valid["fit.fits"])}
    what = rng.choice(["aperture", "beams"])
    use = ["report", "fit.fits"]
    if rng.random() < 0.2:
        use = ["plot", "fit.fits", "--what", what, "--out", "out.png"]
    return Case("result", files, use)


def _draw_telescope(rng: random.Random, valid: dict[str, bytes]) -> Case:
    files: dict[str, bytes | str] = {"my.toml": damage(rng, valid[f"{rng.choice(list(_TELESCOPES))}.toml"])}
    use = ["telescopes", "my.toml"]
    chance = rng.random()
    if chance < 0.15:
        use = ["simulate", "out.fits", "--telescope", "my.toml", "--reach", "2", "--step", "0.5"]
    elif chance < 0.25:
        files["obs.fits"] = valid["oof.fits"]
        use = ["fit", "obs.fits", "--telescope", "my.toml", "--order", "1", *FIT, "--out", "out"]
    return Case("telescope", files, use)


def _draw_surface(rng: random.Random, valid: dict[str, bytes]) -> Case:
    name = rng.choice(["z.txt", "z.json", "summary.json", "fit.fits", "fit.fits"])
    option = rng.choice(["--coeffs", "--phase-map"] if name == "fit.fits" else ["--coeffs"])
    use = ["simulate", "out.fits", "--telescope", TELESCOPE, "--reach", "2", "--step", "0.5", option, name]
    return Case("surface", {name: damage(rng, valid[name])}, use)


_FIT_OPTIONS = ["--order", "--amplitude-order", "--nuisance", "--likelihood", "--illumination", "--device"]
_ASSIGNED = ["z3", "z999999", "z9999999999", "a3", "a99999", "sigma", "gain_0", "dz", "offset", "dx", "legs"]
_ASSIGNED += [
    "z1",
    "rho",
    "radius",
    "x0",
    "dz_scale",
    "q",
    "noise",
    "shadow",
    "gain_ratio",
    "white",
    "surface",
]
_SIMULATE_NUMBERS = [
    "frequency-ghz",
    "rms",
    "spectrum",
    "gravity",
    "disc-arcsec",
    "reach",
    "step",
    "peak",
    "smear-arcsec",
    "snr",
    "snr-per-beam",
    "multiplicative",
    "drift",
    "baseline",
    "jitter-arcsec",
    "wander-arcsec",
    "dz-error-mm",
    "gain-error",
    "glitches",
    "slope",
    "line-gain",
    "gain-drift",
    "line-pointing-arcsec",
    "pointing-arcsec",
    "glitch-size",
    "seed",
    "order",
    "dz-mm",
    "chop-arcsec",
    "bump",
]


def _draw_options(rng: random.Random, valid: dict[str, bytes]) -> Case:
    number = rng.choice([*_NUMBERS, "-2", "65", "31"])
    if rng.random() < 0.5:
        use = ["fit", "obs.fits", "--order", "1", *FIT, "--out", "out"]
        way = rng.choice([*_FIT_OPTIONS, "--fix", "--free", "--out"])
        value = rng.choice([number, *_WORDS]) if way not in ("--order", "--amplitude-order") else number
        if way == "--fix":
            value = f"{rng.choice(_ASSIGNED)}={number}"
        elif way == "--free":
            value = rng.choice(_ASSIGNED)
        elif way == "--out":
            value = rng.choice(["obs.fits", "no/such", "", "a" * 300, "\x1b[31m", "/dev/null"])
        return Case("fit options", {"obs.fits": valid["oof.fits"]}, [*use, way, value])
    use = ["simulate", "out.fits", "--telescope", TELESCOPE, "--reach", "2", "--step", "0.5", "--rms", "0.3"]
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice([*_SIMULATE_NUMBERS, "set", "seed-of", "pattern"])
        value = rng.choice([*_NUMBERS, "-2"])
        if name in ("set", "seed-of"):
            value = f"{rng.choice(_ASSIGNED)}={value}"
        elif name == "pattern":
            value = rng.choice(["otf", "daisy", "spiral"])
        elif name in ("dz-mm", "chop-arcsec", "bump"):
            value = ",".join(
                rng.choice([value, "0", "1", "0.5"]) for _ in range(rng.choice([1, 2, 3, 4, 300]))
            )
        use += [f"--{name}={value}"]
    return Case("simulate options", {}, use)


# Functions that draw an input, with the share of each.
MAKERS: dict[Callable[[random.Random, dict[str, bytes]], Case], float] = {
    _draw_fits: 0.40,
    _draw_toml: 0.22,
    _draw_result: 0.16,
    _draw_telescope: 0.11,
    _draw_surface: 0.03,
    _draw_options: 0.08,
}


def draw_case(rng: random.Random, valid: dict[str, bytes]) -> Case:
    """Draw one damaged input."""
    (make,) = rng.choices(list(MAKERS), list(MAKERS.values()))
    return make(rng, valid)


# ------------------------------------------------------------------------------------------------ tries


class _Late(BaseException):
    """The command has taken too long."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _report(path: str) -> None:
    """Print the report of a stored fit: no command does, but every program may."""
    try:
        result = ooftorch.read_fit(path)
        click.echo(ooftorch.report(result) + json.dumps(ooftorch.summary(result), allow_nan=False))
    except InputError as error:
        click.echo(f"ooftorch: {error}", err=True)
        sys.exit(2)
    sys.exit(0)


def _place(folder: Path, name: str, content: bytes | str) -> None:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "directory":
        path.mkdir()
    elif content == "loop":
        path.symlink_to(path)
    elif content == "zero":
        path.symlink_to("/dev/zero")
    elif content == "closed":
        path.symlink_to(folder / "nowhere")


def _list(folder: Path) -> dict[str, bytes]:
    """All names under a folder, with what regular files hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b""
        for path in folder.rglob("*")
    }


def attempt(case: Case, folder: Path, seconds: float = MAX_SECONDS) -> tuple[str, str]:
    """Run one input in an empty folder.

    Returns
    -------
    outcome : "result", "refused" or the kind of failure.
    detail : the line, or what is wrong.
    """
    inside = folder / "inside"
    inside.mkdir()
    for name, content in case.files.items():
        _place(inside, name, content)
    before = _list(folder)
    out, err = io.StringIO(), io.StringIO()
    status: object = None
    here, argv = os.getcwd(), sys.argv
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)
        os.chdir(inside)
        sys.argv = ["ooftorch", *case.arguments]
        try:
            with _at_most(seconds):
                if case.arguments[0] == "report":
                    _report(case.arguments[1])
                run_command()
        except SystemExit as end:
            status = end.code
        except _Late:
            return "hang", f"more than {seconds} s"
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)
            ours = [f"{Path(f.filename).name}:{f.name}" for f in at if "/ooftorch/" in f.filename]
            return "traceback", f"{type(error).__name__} in {' > '.join(ours[-2:])}: {str(error)[:150]}"
        finally:
            os.chdir(here)
            sys.argv = argv
    after = _list(folder)
    new = {name for name in after if after[name] != before.get(name)} | (before.keys() - after.keys())
    lines = err.getvalue().splitlines()
    if caught:
        w = caught[0]
        return "warning", f"{Path(w.filename).name}: {str(w.message)[:150]}"
    if status in (0, 1):
        asked = {f"inside/{name}" for name in ("out", "out.fits", "out.png")}
        stray = {name for name in new if "/".join(name.split("/")[:2]) not in asked}
        if stray and not (case.form == "fit options" and all(n.count("/") > 0 for n in stray)):
            return "stray file", ", ".join(sorted(stray))[:150]
        return ("noise on stderr", lines[0][:150]) if lines else ("result", "")
    if status != 2:
        return "status", f"{status!r} {err.getvalue()[:150]}"
    if new:
        return "stray file", ", ".join(sorted(new))[:150]
    if len(lines) != 1 or not lines[0].startswith("ooftorch: "):
        return "not one line", err.getvalue()[:300]
    if len(lines[0]) > MAX_LINE or not lines[0].isprintable():
        return "long line", f"{len(lines[0])}: {lines[0][:150]}"
    return "refused", lines[0]


# -------------------------------------------------------------------------------------------- long form


def work(first: int, n: int, keep: Path | None) -> None:
    """Try inputs `first`, `first` + 1, ..., and print a line of JSON for each."""
    drawing.count_cores = lambda: 1  # pictures are drawn in this process
    with tempfile.TemporaryDirectory() as made:
        valid = make_valid(Path(made))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
        for number in range(first, first + n):
            case = draw_case(random.Random(number), valid)
            folder = Path(tempfile.mkdtemp(dir=made)) if keep is None else keep
            faulthandler.dump_traceback_later(3 * MAX_SECONDS, exit=True)
            begin = time.perf_counter()
            outcome, detail = attempt(case, folder)
            seconds = time.perf_counter() - begin
            faulthandler.cancel_dump_traceback_later()
            if keep is None:
                shutil.rmtree(folder)
            print(json.dumps([number, case.form, case.arguments, outcome, detail, seconds]), flush=True)


def run(first: int, n: int) -> list[list[Any]]:
    """Try inputs in a process of their own; one that ends it is a failure, and the next goes on."""
    found: list[list[Any]] = []
    end = first + n
    while first < end:
        command = [sys.executable, __file__, "--worker", "--first", str(first), "--n", str(end - first)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        found += rows
        first += len(rows)
        if first < end:
            last = done.stderr.strip().splitlines()[-1:] or [""]
            found.append([first, "?", [], "process ended", f"{done.returncode} {last[0][:150]}", 0.0])
            first += 1
    return found


def show(found: list[list[Any]]) -> int:
    """Print the table and the distinct failures; return how many inputs failed."""
    good = ("result", "refused")
    outcomes = sorted({row[3] for row in found} - set(good))
    print(f"{'form':18s} {'inputs':>7s} {'result':>7s} {'refused':>8s}", *(f"{o:>9s}" for o in outcomes))
    for form in [*sorted({row[1] for row in found}), "all"]:
        count = Counter(row[3] for row in found if form in (row[1], "all"))
        words = [f"{count[o]:{max(9, len(o))}d}" for o in outcomes]
        print(f"{form:18s} {count.total():7d} {count['result']:7d} {count['refused']:8d}", *words)
    failed = [row for row in found if row[3] not in good]
    kinds: dict[str, list[list[Any]]] = {}
    for row in failed:
        kinds.setdefault(f"{row[3]}: {re.sub(r'[0-9.e+-]{2,}', '#', row[4])[:110]}", []).append(row)
    for kind, rows in sorted(kinds.items(), key=lambda item: -len(item[1])):
        numbers = ", ".join(str(row[0]) for row in rows[:4])
        print(f"{len(rows):5d} {kind}  [{numbers}] {' '.join(rows[0][2])[:80]}")
    slowest = max(found, key=lambda row: row[5])
    print(
        f"{len(failed)} of {len(found)} failed, in {len(kinds)} ways; slowest {slowest[5]:.1f} s", slowest[:3]
    )
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="number of inputs")
    parser.add_argument("--first", type=int, default=0, help="number, and random seed, of the first")
    parser.add_argument("--keep", type=Path, help="try the first alone, in this new folder")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.keep is not None:
        given.keep.mkdir()
        work(given.first, 1, given.keep.resolve())
    elif given.worker:
        work(given.first, given.n, None)
    else:
        found: list[list[Any]] = []
        for first in range(given.first, given.first + given.n, CHUNK):
            found += run(first, min(CHUNK, given.first + given.n - first))
            print(f"{len(found)} inputs", file=sys.stderr, flush=True)
        sys.exit(1 if show(found) else 0)


if __name__ == "__main__":
    main()
