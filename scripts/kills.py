"""Kill, interrupt and starve `ooftorch fit --overwrite`, and see that results are always complete.

    scripts/kills.py            # about five minutes on one core
    scripts/kills.py --short    # some seconds, as the tests do

Each line of the table is one kind of trouble: how often it was made, after how many of these the directory
held the old results and the new, and the failures: files of two runs, none, files of the user that have
changed, hidden folders that the next run leaves, a traceback, a wrong exit status. Ends with status 1 if
there is one.

Every trial is a process of its own, forked from this one, which has loaded everything. Where the fit is not
what is tried, its result is known beforehand, and so are the pictures: the time goes into writing.
"""

import argparse
import collections
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import ooftorch
from ooftorch.cli.command import main
from ooftorch.files import whole_directory, whole_file
from ooftorch.fitting import fitter
from ooftorch.reporting import drawing, plot
from ooftorch.simulation import surfaces

NAMES = ("summary.json", "fit.fits", "aperture.png", "beams.png")
DIED = 9
_QUICK = ("--order", "2", "--amplitude-order", "0", "--nuisance", "none")


class Directory:
    """A directory with results and files of the user, and what is wrong with it.

    Parameters
    ----------
    folder : Path
        Of its own; has the observation, too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "out"
        (self.path / "sub").mkdir(parents=True)
        (self.path / "notes.txt").write_text("mine")
        (self.path / "sub" / "log.txt").write_text("mine, too")

    def read(self) -> dict[str, bytes]:
        """The results, as far as they are there."""
        files = (self.path / name for name in NAMES)
        return {file.name: file.read_bytes() for file in files if file.exists()}

    def hidden(self) -> list[Path]:
        """Folders that a dead run has left."""
        return [*self.folder.glob(".*"), *self.path.glob(".*")]

    def judge(self, before: dict[str, bytes]) -> str:
        """Say whether the results are "old", "new", or what is wrong."""
        now = self.read()
        notes, log = self.path / "notes.txt", self.path / "sub" / "log.txt"
        if not (notes.read_text() == "mine" and log.read_text() == "mine, too"):
            return "a file of the user has changed"
        if now == before:
            return "old"
        if set(now) != set(NAMES):
            return f"only {sorted(now)}"
        if any(now[name] == before.get(name) for name in NAMES):
            return "files of two runs"
        told = json.loads(now["summary.json"])["object"]
        if told not in now["fit.fits"][:23040].decode("ascii", "replace"):
            return "files of two runs"
        return "new"


def start(task: Callable[..., int], *arguments: Any, **options: Any) -> int:
    """Run a task in a process of its own; return its number."""
    number = os.fork()
    if number:
        return number
    status = 70
    try:
        os.setpgid(0, 0)
        status = task(*arguments, **options)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(number: int) -> int:
    """Wait for a process; return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def run_command(directory: Directory, *options: str, log: Path | None = None) -> int:
    """Run `ooftorch fit --overwrite` in this process; return the exit status."""
    os.chdir(directory.folder)
    sys.argv = ["ooftorch", "fit", "obs.fits", "--out", "out", "--overwrite", *options]
    with open(log or os.devnull, "w") as err, redirect_stdout(io.StringIO()), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 70


def write_known(
    directory: Directory,
    result: ooftorch.FitResult,
    label: str,
    limit: int | None = None,
    log: Path | None = None,
) -> int:
    """Run the command with a known result and known pictures, and perhaps a limit to the size of files."""

    def save(picture: bytes, path: Path) -> None:
        with whole_file(path) as partial:
            partial.write_bytes(picture + label.encode())

    fitter.fit = lambda *_, **__: replace(result, object=label)
    plot.plot_aperture = plot.plot_beams = lambda _: bytes(250_000)
    plot.save = save
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return run_command(directory, log=log)


class Study:
    """The trials, and a table of what came of them.

    Parameters
    ----------
    folder : Path
        For the directories that are tried.
    seed : int
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._random = folder, random.Random(seed)
        self.failures: list[str] = []
        drawing.count_cores = lambda: 1  # no second process of which a kill would leave the rest
        values = surfaces.random(2, 0.4, seed=seed)
        self._observation = ooftorch.simulate(
            "paper", values, noise=ooftorch.Noise(snr=300), step=0.7, reach=3.5, seed=seed
        )
        self._result = ooftorch.fit(self._observation, order=2, n=96)
        plot.save(plot.plot_aperture(self._result), folder / "a.png")  # loads what is loaded when first used
        print(f"{'trial':34} {'times':>6} {'old':>5} {'new':>5} {'failures':>9} {'seconds':>8}", flush=True)

    def _make_directory(self) -> Directory:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        ooftorch.write(self._observation, folder / "obs.fits")
        directory = Directory(folder)
        self._fill(directory, "the first")
        return directory

    def _fill(self, directory: Directory, label: str) -> None:
        status = wait(start(write_known, directory, self._result, label))
        if status or directory.hidden() or set(directory.read()) != set(NAMES):
            self.failures.append(f"a run without trouble: status {status}, leaves {directory.hidden()}")

    def _tell(self, name: str, began: float, outcomes: list[str]) -> None:
        count = collections.Counter(outcomes)
        bad = [o for o in outcomes if o not in ("old", "new")]
        self.failures += [f"{name}: {o}" for o in bad]
        seconds = time.perf_counter() - began
        print(
            f"{name:34} {len(outcomes):6} {count['old']:5} {count['new']:5} {len(bad):9} {seconds:8.1f}",
            flush=True,
        )

    def kill(self, times: int, aimed: bool) -> None:
        """Kill the command at random moments, or in the milliseconds in which the files are switched over."""
        began, directory = time.perf_counter(), self._make_directory()
        first = time.perf_counter()
        self._fill(directory, "the second")
        length, outcomes = time.perf_counter() - first, []
        for i in range(times):
            before, left = directory.read(), set(directory.hidden())
            number = start(write_known, directory, self._result, f"run {i}")
            if aimed:
                deadline = time.perf_counter() + 20 * length
                while not any((part / ".old").exists() for part in set(directory.hidden()) - left):
                    if time.perf_counter() > deadline or os.waitid(
                        os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT
                    ):
                        break
                time.sleep(self._random.uniform(0, 0.002))
            else:
                time.sleep(self._random.uniform(0, 1.1 * length))
            os.kill(number, signal.SIGKILL)
            wait(number)
            outcomes.append(directory.judge(before))
            if len(directory.hidden()) > 1:
                outcomes[-1] = f"{len(directory.hidden())} hidden folders"
        self._fill(directory, "the last")
        self._tell("kills at the switch" if aimed else "kills at random moments", began, outcomes)

    def kill_at_each_call(self, step: int) -> None:
        """Let the writing of a directory die before each (n-th) of its system calls, then the next."""
        began, outcomes = time.perf_counter(), []
        for existing in ("no", "empty", "with results"):
            for number in itertools.count(0, step):
                folder = Path(tempfile.mkdtemp(dir=self._folder))
                path = folder / "out"
                if existing != "no":
                    path.mkdir()
                if existing == "with results":
                    write_marks(path, 1, None)
                    (path / "mine").write_text("mine")
                statuses = []
                for mark, calls in ((2, number), (3, self._random.randrange(60)), (4, None)):
                    before = read_marks(path)
                    statuses.append(wait(start(write_marks, path, mark, calls)))
                    now = read_marks(path)
                    outcomes.append("old" if now == before else "new" if now == {mark} else f"marks {now}")
                left = {p.name for p in path.iterdir()} - {"a", "b", "c", "mine"}
                if statuses[-1] or left or list(folder.iterdir()) != [path]:
                    outcomes.append(f"status {statuses}, left {left}")
                if existing == "with results" and (path / "mine").read_text() != "mine":
                    outcomes.append("a file of the user has changed")
                shutil.rmtree(folder)
                if statuses[0] == 0:
                    break
        self._tell("kills at each system call", began, outcomes)

    def interrupt(self, times: int) -> None:
        """Send SIGINT and SIGTERM during real fits."""
        began, directory = time.perf_counter(), self._make_directory()
        # As long as it takes: from the second run on.
        for _ in range(2):
            first = time.perf_counter()
            wait(start(run_command, directory, *_QUICK))
            length = time.perf_counter() - first
        outcomes, log = [], directory.folder / "err.txt"
        for i in range(times):
            before, which = directory.read(), (signal.SIGINT, signal.SIGTERM)[i % 2]
            number = start(run_command, directory, *_QUICK, log=log)
            time.sleep(0.02 + self._random.uniform(0, length))
            os.kill(number, which)
            if i % 5 == 4:  # a second one
                time.sleep(self._random.uniform(0, 0.5 * length))
                os.kill(number, which)
            status = wait(number)
            outcomes.append(self._judge_interrupt(directory, before, status, 128 + which, log))
        self._fill(directory, "the last")
        self._tell("interrupts", began, outcomes)

    @staticmethod
    def _judge_interrupt(
        directory: Directory, before: dict[str, bytes], status: int, expected: int, log: Path
    ) -> str:
        now, err = directory.read(), log.read_text().split("\n")
        if directory.hidden():
            return "hidden folders"
        if now != before and (set(now) != set(NAMES) or any(now[n] == before[n] for n in NAMES[:2])):
            return "files of two runs"
        if status == -(expected - 128) or (status == 0 and now != before):
            return "old" if now == before else "new"  # before the command had begun, or after it
        if status != expected:
            return f"status {status} for {expected}: {err}"
        lines = [line for line in err if line]
        if any("Traceback" in line for line in lines) or len(lines) > 2:
            return f"more than its lines: {lines}"
        if now == before:
            return "old" if lines[-1].endswith("nothing was written") else f"nothing said: {lines}"
        numbers = json.loads(now["summary.json"])
        ended_early = any("best result so far" in line for line in lines)
        if numbers["interrupted"] != ended_early or (ended_early and numbers["converged"]):
            return f"interrupted is {numbers['interrupted']}: {lines}"
        if ended_early and numbers["verdict"] != "do not apply":
            return f"verdict {numbers['verdict']}"
        return "new"

    def fill_disk(self, times: int) -> None:
        """Let no file grow beyond a limit."""
        began, directory, outcomes = time.perf_counter(), self._make_directory(), []
        largest = max(len(content) for content in directory.read().values())
        for i in range(times):
            limit, before = int(1.2 * largest * (i + 1) / times), directory.read()
            log = directory.folder / "err.txt"
            status = wait(start(write_known, directory, self._result, f"run {i}", limit, log))
            told, outcome = log.read_text().strip(), directory.judge(before)
            if directory.hidden():
                outcome = "hidden folders"
            elif (status, outcome) not in ((2, "old"), (0, "new")):
                outcome = f"status {status} and {outcome}"
            elif status == 2 and not ("cannot be written" in told and "\n" not in told):
                outcome = f"said {told!r}"
            outcomes.append(outcome)
        self._tell("a disk that is full", began, outcomes)

    def run_two(self, times: int) -> None:
        """Let two runs end in one directory at the same time, which exists or not."""
        began, outcomes = time.perf_counter(), []
        directory = self._make_directory()
        for i in range(times):
            before = directory.read()
            if i % 3 == 2:
                shutil.rmtree(directory.path)
            names = (f"run {i} of two", f"run {i} of the others")
            both = [start(write_known, directory, self._result, name) for name in names]
            statuses = [wait(number) for number in both]
            if i % 3 == 2:
                now = directory.read()
                directory = Directory(Path(tempfile.mkdtemp(dir=self._folder)))
                shutil.copy(self._folder / "obs.fits", directory.folder)
                for name, content in now.items():
                    (directory.path / name).write_bytes(content)
            outcome = directory.judge(before)
            if statuses != [0, 0] or directory.hidden():
                outcome = f"status {statuses}, leaves {directory.hidden()}"
            outcomes.append(outcome if outcome != "old" else "neither of the two")
        self._tell("two at once", began, outcomes)

    def keep_observation(self) -> None:
        """Write the observation where directories get it from."""
        ooftorch.write(self._observation, self._folder / "obs.fits")


def write_marks(path: Path, mark: int, calls: int | None) -> int:
    """Write three files with a mark into a directory; die before a call of the system (None: do not)."""
    left = calls

    def count(event: str, _: tuple) -> None:
        nonlocal left
        if left is not None and (event == "open" or event.startswith(("os.", "shutil."))):
            if left == 0:
                os._exit(DIED)
            left -= 1

    if calls is not None:
        sys.addaudithook(count)
    with whole_directory(path, True) as part:
        for name in "abc":
            (part / name).write_text(str(mark))
    return 0


def read_marks(path: Path) -> set[int | None]:
    """The marks of the three files; None for one that is not there."""
    files = [path / name for name in "abc"]
    return {int(file.read_text()) if file.exists() else None for file in files}


def run(short: bool, seed: int = 0) -> list[str]:
    """Run all trials; return the failures."""
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), seed)
        study.keep_observation()
        study.kill_at_each_call(7 if short else 1)
        study.kill(3 if short else 100, aimed=False)
        study.kill(3 if short else 100, aimed=True)
        study.interrupt(3 if short else 50)
        study.fill_disk(3 if short else 20)
        study.run_two(2 if short else 20)
        return study.failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few trials of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    failed = run(chosen.short, chosen.seed)
    print("\n".join(failed) or "no failures")
    sys.exit(bool(failed))
