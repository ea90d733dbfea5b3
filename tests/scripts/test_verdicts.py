"""The labelled set of verdicts: what it is made of, its labels, and that its words can fail."""

import json

import numpy as np
import pytest
import spoilt
import verdicts


def test_the_set_is_as_large_as_stated():
    cases = verdicts.list_cases(verdicts.LAST)
    assert len(cases) >= 300
    assert sum(pathology is None for pathology, _ in cases) == 80
    named = {}
    for pathology, size in cases:
        if pathology is not None and pathology.names:
            named.setdefault(pathology.way.name, set()).add(size)
    assert len(named) == len(verdicts.FURTHER) + len(verdicts.NAMES)
    assert {len(sizes) for sizes in named.values()} == {3}
    # All that the issue asks for by name.
    assert {name for p in verdicts.name_ways() for name in p.names} >= {
        *("dz_sign", "dz_scale", "beam_size", "flipped", "swapped", "clipped", "displaced", "extended"),
        *("saturated", "drift", "stripes", "glitches", "changed"),
    }


def test_the_last_set_has_other_telescopes_and_seeds():
    names = [{setup.telescope for setup in plan.setups} for plan in (verdicts.TUNING, verdicts.LAST)]
    assert not names[0] & names[1]
    seeds = [
        set(range(plan.seed, plan.seed + len(verdicts.list_cases(plan))))
        for plan in (verdicts.TUNING, verdicts.LAST)
    ]
    assert not seeds[0] & seeds[1]
    for first, n in ((spoilt.FINAL_SEED, 1100), (spoilt.TUNE_SEED, 1100)):
        assert not (seeds[0] | seeds[1]) & set(range(first, first + n))


@pytest.mark.parametrize(
    ("error", "rms", "word"),
    [
        (0.09, 0.3, "right"),
        (0.15, 0.3, "between"),
        (0.19, 0.3, "bad"),
        (0.24, 1.0, "right"),
        (0.31, 1.0, "bad"),
    ],
)
def test_labels(error, rms, word):
    assert verdicts.label(error, rms) == word


def test_a_surface_of_nan_is_bad():
    assert verdicts.label(float("nan"), 1.0) == "bad"


@pytest.mark.parametrize("pathology", verdicts.FURTHER, ids=lambda p: p.way.name)
def test_every_further_way_changes_the_observation(pathology):
    sample = spoilt.Sample(spoilt.TUNE[0], 3, 0.6, 300.0)
    clean = spoilt.observe(sample, spoilt.Truth())
    spoiled = spoilt.observe(sample, pathology.way.spoil(sample, pathology.way.sizes[-1]))
    spoiled.check()
    same = [
        all((getattr(m, key) == getattr(n, key)).all() for key in ("x", "y", "power")) and m.dz == n.dz
        for m, n in zip(spoiled.maps, clean.maps, strict=True)
    ]
    assert not all(same) or spoiled.wavelength != clean.wavelength


def row(way, names, label, verdict, causes):
    bad = label == "bad"
    return {
        **{"way": way, "size": 1.0, "unit": "", "names": names, "telescope": "jcmt", "label": label},
        **{"verdict": verdict, "causes": [{"name": c, "change": 0.1} for c in causes], "sigma": 0.1},
        **{"error": 0.9 if bad else 0.2, "rms": 0.5, "numbers": {"phase_rms": 0.5}},
        "chance": 0.4 if verdict == verdicts.STOP else 0.99,
    }


def test_its_words():
    rows = [
        row("a", ["flipped"], "bad", "good", ["flipped"]),
        row("a", ["flipped"], "bad", verdicts.STOP, ["glitches", "flipped"]),
        row("good", [], "right", "good", []),
        row("good", [], "right", verdicts.STOP, []),
    ]
    shares = verdicts.find_shares(rows)
    assert shares == {
        "bad, called good": (1, 2),
        "right, called do not apply": (1, 2),
        "right, called good": (1, 2),
        "named": (1, 2),
    }
    text = verdicts.section({"rows": rows})
    assert text.count("missed") == 4
    assert "| a | 1 | 0 | 0 | 2 | 1 | 0 | 0 | 1 of 2 |" in text
    assert len(verdicts.picture({"rows": rows}).axes) == 1
    # Of each pair one would have improved, whatever was told.
    assert [(b["n"], b["told"], b["better"]) for b in verdicts.compare_chances(rows)] == [
        (2, 0.4, 0.5),
        (2, 0.99, 0.5),
    ]
    assert "| 25% to 50% | 2 | 0.40 | 0.50 |" in text


def test_the_odds_are_found():
    """Of surfaces that improve in nine of ten cases, and in three of ten where they are not to be applied."""
    rows = [
        {**row("a", [], "right", word, []), "error": 0.1 if i % 10 < good else 0.9}
        for word, good in (("good", 9), (verdicts.STOP, 3))
        for i in range(200)
    ]
    base, stopped, _ = verdicts.fit_odds(rows)
    assert base == pytest.approx(np.log(9), rel=0.05)
    assert base + stopped == pytest.approx(np.log(3 / 7), rel=0.05)


@pytest.mark.slow
def test_its_rows_are_json():
    rows = verdicts.measure(quick=True)["rows"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["way"] for row in rows] == ["dz of one map reversed", "good"]
    assert rows[0]["verdict"] != "good"
    assert rows[1]["numbers"]["converged"]
