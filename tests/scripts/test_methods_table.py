"""The table of methods and problems says what it measures, and leaves no cell empty."""

import re

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def module():
    import methods_table

    return methods_table


@pytest.fixture(scope="module")
def quick(module):
    return module.measure(True, report=lambda text: None)["cells"]


def test_every_cell_has_a_mark_and_its_reason(module, quick):
    rows, columns = module.QUICK
    assert list(quick) == rows
    marks = {(m, n): c["mark"] for m, row in quick.items() for n, c in row.items()}
    assert len(marks) == len(rows) * len(columns)
    assert marks["bfgs", "rosenbrock 2"] == marks["trust-exact", "rosenbrock 2"] == "="
    assert marks["sgd", "rosenbrock 2"] == marks["bfgs", "disc"] == "refused"
    text = module.cells_text(quick)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    notes = re.findall(r"^\d+\. (.+)$", text, re.MULTILINE)
    for line in lines[2:]:
        for cell in line.strip("|").split("|")[1:]:
            assert re.fullmatch(r" (\d+/\d+/\d+ )?(=|~|short|refused|-)( \(\d+\))? ", cell)
            if re.search("short|refused|-", cell):
                assert 1 <= int(re.search(r"\((\d+)\)", cell)[1]) <= len(notes)
    assert module.unexpected(quick) == []


def test_what_is_not_as_expected_is_marked(module, monkeypatch):
    import problems

    monkeypatch.setitem(problems.SHORT, ("bfgs", "rosenbrock 2"), "it does not")
    assert module.cell("bfgs", "rosenbrock 2", None).mark == "?"
    monkeypatch.setattr(module, "by_hand", lambda *a: (problems.by_hand(*a)[0], (1, 1, 0)))
    wrong = module.cell("bfgs", "beale", None)
    assert (wrong.mark, wrong.scipy) == ("?", (1, 1, 0))
    assert "(1, 1, 0)" in module.unexpected({"bfgs": {"beale": vars(wrong)}})[0]


def test_a_global_method_is_compared_with_scipys(module):
    cell = module.cell("basinhopping", "beale", None)
    assert (cell.mark, cell.counts) == ("=", cell.scipy)
    assert cell.counts[0] > 0


def test_derivatives_by_hand_of_the_larger_problems(module):
    """Of the cities against torch's; of the beam maps a difference, along one direction."""
    cities = module.the_cities().problem
    x = torch.from_numpy(cities.start)
    np.testing.assert_allclose(
        cities.hessian(cities.start), torch.autograd.functional.hessian(cities.torch, x), atol=1e-10
    )
    oof = module.oof().problem
    direction = np.random.default_rng(0).normal(size=oof.start.size)
    high, low = (float(oof.torch(torch.from_numpy(oof.start + s * 1e-6 * direction))) for s in (1, -1))
    assert oof.gradient(oof.start) @ direction == pytest.approx((high - low) / 2e-6, rel=1e-6)


def test_without_the_data_of_nist_the_page_says_so(module, monkeypatch, tmp_path):
    monkeypatch.setattr(module.nist, "DATA", tmp_path / "nothing")
    assert "left out" in module.regressions_text(module.regressions())
