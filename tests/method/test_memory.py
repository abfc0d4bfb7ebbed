"""The memory's promise, checked in exact rational arithmetic, and its files."""

import dataclasses
import inspect
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ancer import Region
from ancer.classifier import Evaluation
from ancer.regions import _geometry as geometry
from ancer.regions import _lookup, memory
from ancer.regions import _records as records
from ancer.regions.memory import Memory
from ancer.regions.region import ABSTAIN

EVALUATION = Evaluation(
    model="0" * 64,
    probe="1" * 64,
    outputs="logits",
    dtype="float32",
    memory_format="contiguous_format",
    batch_size=1000,
    device="x86_64",
    threads=2,
    torch="2",
)


@dataclass
class Certificate:
    """What the memory needs of ancer.Certificate."""

    prediction: int
    center: Tensor
    norm: int
    region: Region | None
    evaluation: Evaluation | None = EVALUATION
    lattice: float | None = None
    arithmetic: str = "not floating-point sound"


def certificate(prediction, center, axes=1.0, norm=2, dtype=torch.float64, **changed):
    center = torch.as_tensor(center, dtype=dtype)
    axes = torch.as_tensor(axes, dtype=torch.float64)
    region = None if prediction == ABSTAIN else Region(center, axes, norm)
    evaluation = dataclasses.replace(EVALUATION, **changed)
    return Certificate(prediction, center, norm, region, evaluation)


def ask(m, prediction, center, axes=1.0, norm=2, **options):
    return m.answer(certificate(prediction, center, axes, norm, **options))


# --- the promise, exactly -------------------------------------------------------------------------


def fractions(t):
    return [Fraction(v) for v in t.double().flatten().tolist()]


def lies_in(x, region):
    """Whether x lies in the closed region, exactly."""
    ratios = zip(fractions(x), fractions(region.center), fractions(full(region)), strict=True)
    return sum(abs((y - c) / a) ** region.norm for y, c, a in ratios) <= 1


def disjoint(one, other, multiplier):
    """Whether the closed regions are proved to be disjoint: a dual bound above 1, exactly."""
    rows = list(
        zip(*map(fractions, (one.center, other.center, full(one), full(other))), strict=True)
    )
    if one.norm == 1:
        return sum(abs(x - y) / a * min(a / b, multiplier) for x, y, a, b in rows) - multiplier > 1
    return (
        multiplier
        * (sum(((x - y) / a) ** 2 / (1 + multiplier * (b / a) ** 2) for x, y, a, b in rows) - 1)
        > 1
    )


def full(region):
    return region.axes.expand_as(region.center)


def contradictions(log, *, strict):
    """What a log of (certificate, answer) breaks of the promise.

    Where float64 leaves a doubt, exactly.
    """
    x = torch.stack([query.center.double() for query, _ in log])
    answers = torch.tensor([answer.prediction for _, answer in log])
    has_region = torch.tensor([answer.region is not None for _, answer in log])
    order = torch.arange(len(log))
    for t, (certificate, answer) in enumerate(log):
        region = answer.region
        if region is None:
            continue
        if (
            answer.event in ("kept", "limited", "shrunk")
            and not (region.axes <= certificate.region.axes).all()
        ):
            yield "a region larger than its certificate"
        other = answers != answer.prediction
        promised = other if strict else other & ((order > t) | (answers != ABSTAIN))
        near = geometry.scaled_norm(x - region.center, full(region), region.norm) < 1 + 1e-9
        for s in (promised & near).nonzero()[:, 0].tolist():
            if lies_in(x[s], region):
                yield f"query {s} lies in the region of query {t}"
        rows = (other & has_region & (order < t)).nonzero()[:, 0].tolist()
        if rows:
            axes = torch.stack([full(log[s][1].region) for s in rows])
            d, multiplier = geometry.distance(
                x[rows] - region.center, axes, full(region), region.norm
            )
            for i in (d < 1 + 1e-6).nonzero()[:, 0].tolist():
                if not disjoint(log[rows[i]][1].region, region, Fraction(multiplier[i].item())):
                    yield f"the regions of {rows[i]} and {t} meet"


def play(m, rng, *, n, norm, count, dtype=torch.float64):
    """Random queries, many of them nasty, and the answers to them."""
    log = []
    while len(log) < count:
        seen = [entry for entry in log if entry[1].region is not None]
        kind = rng.choice(["new", "old", "edge", "close"], p=[0.5, 0.15, 0.25, 0.1])
        center = torch.tensor(rng.uniform(-1, 1, n))
        if kind == "old" and log:
            center = log[rng.integers(len(log))][0].center
        # on the boundary of a region, within 1e-16 to 1e-10, or in the margins
        if kind == "edge" and seen:
            region = seen[rng.integers(len(seen))][1].region
            z = torch.tensor(rng.standard_normal(n) * (rng.random(n) < 0.7))
            z = z / torch.linalg.vector_norm(z, norm).clamp_min(1e-9)
            off = rng.choice([-1, 0, 1]) * 10 ** rng.uniform(-16, -10) + rng.choice(
                [0, rng.uniform(0, 6e-12)]
            )
            center = region.center + region.axes * z * (1 + off)
        if kind == "close" and log:
            center = log[rng.integers(len(log))][0].center + torch.tensor(
                10 ** rng.uniform(-16, -10, n)
            )
        if rng.random() < 0.3:
            axes = 10 ** rng.uniform(-6, 6, n)
        else:
            axes = 10 ** rng.uniform(-3, 0.3) * np.exp(
                rng.standard_normal(n if rng.random() < 0.7 else ())
            )
        prediction = ABSTAIN if rng.random() < 0.15 else int(rng.integers(3))
        query = certificate(prediction, center, axes, norm, dtype=dtype)
        log.append((query, m.answer(query)))
    return log


QUERIES = {1: 0, 2: 0}


@pytest.mark.parametrize("norm", [1, 2])
def test_the_promise_holds_over_10_000_queries(norm):
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        n=st.sampled_from([1, 2, 3, 7]),
        strict=st.booleans(),
        shrink=st.sampled_from(["direction", "uniform"]),
        largest=st.sampled_from([None, 0.3]),
        dtype=st.sampled_from([torch.float64, torch.float32]),
    )
    def run(seed, n, strict, shrink, largest, dtype):
        with Memory(strict=strict, shrink=shrink, largest=largest) as m:
            log = play(m, np.random.default_rng(seed), n=n, norm=norm, count=100, dtype=dtype)
        assert list(contradictions(log, strict=strict)) == []
        QUERIES[norm] += len(log)

    run()
    assert QUERIES[norm] >= 5_000


def mutant(old, new):
    """The memory with one piece of its source, or of that of its lookup, replaced."""
    modules = {}
    found = 0
    for module in (_lookup, memory):
        text = inspect.getsource(module)
        found += text.count(old)
        mutated = types.ModuleType("mutant")
        exec(compile(text.replace(old, new), "mutant", "exec"), mutated.__dict__)
        modules[module.__name__] = mutated
    assert found == 1, old
    mutated = modules[memory.__name__]
    mutated.Lookup = modules[_lookup.__name__].Lookup
    return mutated.Memory


MUTANTS = {
    "no inflation": ("self.inflation = 1 + 4 * self.tau", "self.inflation = 1.0"),
    "no lookup": ("if holders and held != c:", "if False:"),
    "own class inside another's region": (
        "return Answer(held, region,",
        "return Answer(c, region,",
    ),
    "abstains inside a region": (
        "if holders and held != c:",
        "if holders and held != c and c != ABSTAIN:",
    ),
    "answers where it abstained": (
        "if holders and held != c:",
        "if holders and held not in (c, ABSTAIN):",
    ),
    "no shrinking": ("for file, row in conflicts:", "for file, row in []:"),
    "one conflict only": ("for file, row in conflicts:", "for file, row in conflicts[:1]:"),
    "reports what it does not store": (
        "region = self._region(center, b, p)",
        "region = certificate.region",
    ),
    "inherits the whole certificate": (
        "region = self._region(center, axes, p)",
        "region = certificate.region",
    ),
    "abstentions not stored": ('if self._records.owner["strict"] and not holders:', "if False:"),
    "points not stored": (
        "self._records.append(c, b, x)",
        "self._records.append(c, b, x) if b.all() else b",
    ),
    "gives way to its own class only": (
        "(lower < ENOUGH) & (file.predictions != self.c)",
        "(lower < ENOUGH) & (file.predictions == self.c)",
    ),
    "trusts the balls' centers": ("- file.largest * self.inflation", ""),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutation_of_the_rule_breaks_the_promise(name):
    Mutant = mutant(*MUTANTS[name])

    def survives(seed):
        rng = np.random.default_rng(seed)
        try:
            with Mutant() as m:
                log = play(m, rng, n=1 + seed % 2, norm=1 + seed // 2 % 2, count=80)
        except RuntimeError:  # the memory itself has noticed that regions overlap
            return False
        return not list(contradictions(log, strict=True))

    assert not all(survives(seed) for seed in range(40))


def test_the_margin_absorbs_the_rounding_of_norms(monkeypatch):
    """The norm of a query may round differently from call to call.

    The answer to a duplicate stays.
    """
    jitter = np.random.default_rng(0)

    def noisy(u, a, p):
        return geometry.scaled_norm(u, a, p) * (
            1 + jitter.uniform(-1, 1) * geometry.gamma(u.shape[-1] + 8)
        )

    monkeypatch.setattr(_lookup, "scaled_norm", noisy)
    for seed in range(8):
        with Memory() as m:
            log = play(m, np.random.default_rng(seed), n=2, norm=2, count=100)
        assert list(contradictions(log, strict=True)) == []


def test_concurrent_queries_are_serialized():
    rng = np.random.default_rng(0)
    queries = [certificate(int(rng.integers(3)), rng.uniform(-1, 1, 2), 0.3) for _ in range(200)]
    with Memory() as m, ThreadPoolExecutor(8) as pool:
        log = list(zip(queries, pool.map(m.answer, queries), strict=True))
    assert list(contradictions(log, strict=True)) == []


# --- the rule, case by case -----------------------------------------------------------------------


def test_events():
    m = Memory()
    first = ask(m, 0, [0.0, 0.0])
    assert (first.prediction, first.event, first.conflicts, first.region.radius) == (
        0,
        "kept",
        0,
        1.0,
    )
    shrunk = ask(m, 1, [1.5, 0.0])
    assert (shrunk.prediction, shrunk.event, shrunk.conflicts) == (1, "shrunk", 1)
    assert shrunk.region.axes.tolist() == pytest.approx([0.5, 1.0])
    inherited = ask(m, 1, [0.5, 0.0])
    assert (inherited.prediction, inherited.event, inherited.conflicts) == (0, "inherited", 1)
    assert lies_in(torch.tensor([0.9, 0.0]), inherited.region)
    assert not lies_in(torch.tensor([1.0001, 0.0]), inherited.region)
    assert len(m) == 2  # what lies in a stored region is not stored
    assert ask(m, ABSTAIN, [0.5, 0.0]).prediction == 0  # an abstention inherits too
    assert ask(m, ABSTAIN, [5.0, 0.0]).event == "abstained"
    again = ask(m, 2, [5.0, 0.0])
    assert (again.prediction, again.event, again.conflicts, again.region) == (
        ABSTAIN,
        "abstained",
        1,
        None,
    )
    near = ask(m, 2, [5.0, 0.25])
    assert near.region.radius == pytest.approx(0.25)  # keeps clear of the abstention
    same = ask(m, 0, [0.2, 0.0], 2.0)
    assert (same.prediction, same.event) == (0, "shrunk")


def test_a_query_on_the_boundary_inherits_without_a_region():
    for off in (-1e-16, 0, 1e-16, 5e-13):  # outside by less than the memory tells apart
        m = Memory()
        ask(m, 0, [0.0, 0.0])
        answer = ask(m, 1, [0.0, -1 - off])
        assert (answer.prediction, answer.event, answer.region) == (0, "inherited", None)


def test_a_query_in_the_margin_is_a_point():
    m = Memory()
    ask(m, 0, [0.0, 0.0])
    point = ask(m, 1, [1 + 3e-12, 0.0])
    assert (point.prediction, point.event, point.region, point.conflicts) == (1, "point", None, 1)
    assert ask(m, 0, [1 + 3e-12, 0.0]).prediction == 1  # a duplicate has the answer of before
    assert ask(m, 2, [1.5, 0.0], 0.6).region.radius < 0.5


def test_no_region_is_larger_than_the_largest():
    m = Memory(largest=1.5)
    limited = ask(m, 0, [0.0, 0.0], [1.0, 9.0])
    assert (limited.event, limited.conflicts) == ("limited", 0)
    assert limited.region.axes.tolist() == pytest.approx([0.5, 4.5])
    assert limited.region.proxy_radius == pytest.approx(1.5)
    kept = ask(m, 1, [3.0, 0.0], [1.0, 2.0])
    assert (kept.event, kept.region.axes.tolist()) == ("kept", [1.0, 2.0])
    shrunk = ask(m, 2, [5.0, 0.0], [9.0, 9.0])
    assert (shrunk.event, shrunk.region.axes.tolist()) == ("shrunk", pytest.approx([1.0, 1.5]))
    # what is left out is free for others
    assert ask(m, 1, [0.0, 6.0]).event == "kept"


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan, math.inf])
def test_a_largest_region_that_is_none_is_refused(largest):
    with pytest.raises(ValueError, match="largest must be a proxy radius > 0 or None"):
        Memory(largest=largest)


def test_strict_and_lenient_abstention():
    for strict, radius in ((True, 0.5), (False, 1.0)):
        m = Memory(strict=strict)
        assert ask(m, ABSTAIN, [0.0, 0.0]).prediction == ABSTAIN
        answer = ask(m, 1, [0.5, 0.0])
        assert answer.region.radius == pytest.approx(radius)
        assert len(m) == 1 + strict
        assert ask(m, ABSTAIN, [0.0, 0.0]).prediction == (ABSTAIN if strict else 1)


def test_inherits_the_largest_region_of_several():
    m = Memory()
    ask(m, 0, [0.0, 0.0], [1.0, 1.0])
    ask(m, 0, [0.9, 0.0], [1.0, 4.0])
    answer = ask(m, 1, [0.8, 0.0], 0.1)
    small, large = (Memory() for _ in range(2))
    ask(small, 0, [0.0, 0.0], [1.0, 1.0])
    ask(large, 0, [0.9, 0.0], [1.0, 4.0])
    volumes = [ask(other, 1, [0.8, 0.0], 0.1).region.log_volume for other in (small, large)]
    assert answer.region.log_volume == max(volumes) == volumes[1]
    assert (answer.prediction, answer.conflicts) == (0, 2)


@pytest.mark.parametrize("norm", [1, 2])
def test_order_matters(norm):
    """Two unit balls 1.5 apart: who comes first keeps radius 1, the other gets 0.5."""
    for order in (1, -1):
        m = Memory(shrink="uniform")
        radii = [
            ask(m, c, [x, 0.0], 1.0, norm).region.radius for c, x in [(0, 0.0), (1, 1.5)][::order]
        ]
        assert radii == pytest.approx([1.0, 0.5])


def test_the_first_query_can_poison():
    m = Memory()
    ask(m, 7, [0.0, 0.0])
    assert ask(m, 0, [0.01, 0.0], 5.0).prediction == 7


def test_two_memories_may_contradict_each_other():
    assert ask(Memory(), 0, [0.0, 0.0]).prediction != ask(Memory(), 1, [0.0, 0.0]).prediction


def test_peers_what_is_stored_is_what_is_reported():
    """RANCER reports P1 with a region that holds P2, and P2 with another class."""
    m = Memory()
    assert ask(m, 0, [0.0, 0.0], [1.0, 1.0]).event == "kept"
    p1 = ask(m, 1, [4.0, 0.0], [0.5, 4.0])
    assert (p1.event, p1.region.proxy_radius) == ("kept", pytest.approx(2**0.5))
    p2 = ask(m, 0, [4.0, 3.0], [0.5, 0.5])
    assert (p2.prediction, p2.event) == (1, "inherited")
    assert lies_in(torch.tensor([4.0, 3.0]), p1.region)


def test_peers_a_query_inside_another_class_is_answered():
    """RANCER abstains there, which breaks the promise of before, and crashes on printing it."""
    m = Memory()
    ask(m, 0, [0.0, 0.0])
    answer = ask(m, 1, [0.3, 0.0])
    assert (answer.prediction, f"{answer.region.radius:.3f}") == (0, "0.687")
    assert answer.region.proxy_radius > 0.7  # of the ball that fits


def test_peers_conflicts_shrink_instead_of_crashing():
    """DDRS: TypeError at the first conflict of two classes; corrected radii are never written."""
    m = Memory(shrink="uniform")
    ask(m, 0, [0.0, 0.0])
    assert ask(m, 1, [1.2, 0.0]).region.radius == pytest.approx(0.2)
    assert ask(m, 2, [1.2, 0.5]).region.radius == pytest.approx(0.3)


def test_peers_axes_are_never_rounded_up():
    """ANCER and RANCER print 0.12551 as 0.126.

    Here axes stored in float32 are rounded down, and reported so.
    """
    axes = torch.tensor([0.1, 0.12551, 1 / 3, 0.7], dtype=torch.float64)
    with Memory() as m:
        answer = ask(m, 0, torch.zeros(4), axes, dtype=torch.float32)
    assert (answer.region.axes <= axes).all()
    assert (answer.region.axes >= axes * (1 - 2**-23)).all()
    assert torch.equal(answer.region.axes, answer.region.axes.float().double())
    with Memory() as m:  # float64 images: as they came
        assert torch.equal(ask(m, 0, torch.zeros(4), axes).region.axes, axes)


def test_isotropic_regions_take_one_number():
    n = 3072
    with Memory() as m:
        ask(m, 0, torch.zeros(n), 0.5, dtype=torch.float32)
        record = 8 + 4 * n + records.CHECK  # class, center, checksum
        assert m.nbytes == record + 4
        ask(m, 0, torch.ones(n), torch.full((n,), 0.5), dtype=torch.float32)
        assert m.nbytes == record + 4 + record + 4 * n
        assert len(m) == 2


def test_image_shapes_and_compact_axes():
    image = torch.zeros(3, 4, 4)
    with Memory() as m:
        answer = ask(m, 0, image, torch.tensor(0.5).reshape(1, 1, 1), dtype=torch.float32)
        assert answer.region.center.shape == (3, 4, 4)
        assert answer.region.axes.numel() == 1
        answer = ask(m, 1, image + 0.05, torch.full((3, 1, 1), 0.5), dtype=torch.float32)
        assert answer.prediction == 0
        answer = ask(m, 1, image + 0.1, 0.5, dtype=torch.float32)
        assert answer.region.axes.shape == (3, 4, 4)


# --- folders --------------------------------------------------------------------------------------


def filled(path, **options):
    m = Memory(path=path, **options)
    ask(m, 0, [0.0, 0.0])
    ask(m, 1, [1.5, 0.0])
    ask(m, ABSTAIN, [5.0, 0.0])
    return m


def test_a_folder_keeps_the_memory(tmp_path):
    filled(tmp_path).close()
    with Memory(path=tmp_path) as m:
        assert len(m) == 3
        assert ask(m, 2, [0.5, 0.0]).prediction == 0
        assert ask(m, 2, [1.2, 0.0]).prediction == 1
        assert ask(m, 2, [5.0, 0.0]).prediction == ABSTAIN
    rng = np.random.default_rng(3)
    log, path = [], tmp_path / "new"
    for _ in range(6):  # a memory that is opened again and again keeps its promise throughout
        with Memory(path=path) as m:
            log += play(m, rng, n=2, norm=2, count=30)
    assert list(contradictions(log, strict=True)) == []


@pytest.mark.parametrize("other", [{"norm": 1}, {"strict": False}])
def test_refuses_another_owner(tmp_path, other):
    filled(tmp_path).close()
    with pytest.raises(ValueError, match=f"made for {next(iter(other))}") as refused:
        Memory(path=tmp_path, **other)
    assert "choose another folder" in str(refused.value)  # and the folder is free again:
    with Memory(path=tmp_path) as m:
        assert len(m) == 3


def test_a_folder_is_open_once(tmp_path):
    m = filled(tmp_path)
    with pytest.raises(RuntimeError, match="is in use"):
        Memory(path=tmp_path)
    m.close()
    Memory(path=tmp_path).close()
    with pytest.raises(ValueError, match="closed"):
        ask(m, 0, [0.0, 0.0])


@pytest.mark.parametrize("kind", records.KINDS)
def test_a_truncated_file_is_refused(tmp_path, kind):
    with filled(tmp_path) as m:
        size = m._records.files[records.KINDS.index(kind)].record.itemsize
    (tmp_path / kind).write_bytes((tmp_path / kind).read_bytes()[: size - 1])
    with pytest.raises(ValueError, match=r"truncated.*restore"):
        Memory(path=tmp_path)
    (tmp_path / kind).unlink()
    with pytest.raises(ValueError, match=r"truncated.*restore"):
        Memory(path=tmp_path)


@pytest.mark.parametrize(
    "owner", [b"PK\x03\x04", b"[1]", b'{"format": "another"}', b'{"format": "ancer memory 1"}']
)
def test_a_foreign_or_cut_owner_is_refused(tmp_path, owner):
    filled(tmp_path).close()
    (tmp_path / "owner").write_bytes(owner)
    with pytest.raises(ValueError, match="damaged or no memory"):
        Memory(path=tmp_path)


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_regions_without_an_owner_are_not_overwritten(tmp_path, how):
    filled(tmp_path).close()
    (tmp_path / "owner").unlink()
    if how == "empty":
        (tmp_path / "owner").touch()
    with pytest.raises(ValueError, match="owner is lost"):
        Memory(path=tmp_path)


def test_damaged_regions_that_overlap_are_noticed(tmp_path):
    """In main memory too, where no checksum is compared."""
    with Memory(path=tmp_path) as m:
        ask(m, 0, [0.0, 0.0])
        ask(m, 1, [3.0, 0.0])
        m._records.files[0]._regions["axes"][:2] = 3.0
        m._records.files[0].largest[:2] = 3.0
        with pytest.raises(RuntimeError, match=r"\[0, 1\] overlap"):
            ask(m, 0, [1.5, 0.0])
    with pytest.raises(ValueError, match="record 0 of .*isotropic is damaged"):
        Memory(path=tmp_path)


# --- attacks on the files

AXES = {"isotropic": 1.0, "anisotropic": [1.0, 0.5]}


def made(path, kind, count=6):
    """A closed folder with regions of one kind."""
    with Memory(path=path) as m:
        for k in range(count):
            ask(m, k % 2, [4.0 * k, 0.0], AXES[kind])
    return path


def content(path):
    """What a memory answers: its regions, in their order."""
    with Memory(path=path) as m:
        found = []
        for file in m._records.files:
            for row in range(file.count):
                prediction, axes, center = file.stored(row)
                found.append((prediction, axes.tolist(), center.tolist()))
        return found


def refused_or_unharmed(path, expected):
    """Whether damage was named; a memory that opens must be as it was."""
    try:
        found = content(path)
    except ValueError as error:
        assert str(path) in str(error) and re.search("restore|salvage|choose another", str(error))
        return True
    assert found == expected
    return False


@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("file", ["owner", "records"])
@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.attack)])
def test_no_flipped_bit_changes_a_region(tmp_path, kind, file, step):
    """Every bit, or each 23rd."""
    path = made(tmp_path / "memory", kind)
    target = path / ("owner" if file == "owner" else kind)
    whole = target.read_bytes()
    expected = content(path)
    with Memory(path=path) as m:
        counted = m._records.files[records.KINDS.index(kind)].nbytes
        key = len(json.dumps(m._records.owner))
    used = [*range(8 * counted)]
    if file == "owner":
        used = [*range(8 * key), *range(8 * records.HEADER, 8 * len(whole))]
    for bit in used[::step]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        target.write_bytes(damaged)
        assert refused_or_unharmed(path, expected), (file, bit)
    target.write_bytes(whole)
    assert content(path) == expected


@pytest.mark.parametrize("kind", AXES)
def test_files_that_are_swapped_zeroed_older_or_of_another_memory_are_refused(tmp_path, kind):
    path = made(tmp_path / "memory", kind)
    other = made(tmp_path / "other", kind)
    older = tmp_path / "older"
    shutil.copytree(path, older)
    with Memory(path=path) as m:
        ask(m, 1, [100.0, 0.0], AXES[kind])
    expected = content(path)
    whole = {file.name: file.read_bytes() for file in path.iterdir()}
    attacks = {
        "of another memory": {kind: (other / kind).read_bytes()},
        "older regions": {kind: (older / kind).read_bytes()},
        "older owner": {"owner": (older / "owner").read_bytes()},
        "another's owner": {"owner": (other / "owner").read_bytes()},
        "zeroed": {kind: bytes(len(whole[kind]))},
        "kinds swapped": {"isotropic": whole["anisotropic"], "anisotropic": whole["isotropic"]},
    }
    for name, files in attacks.items():
        for file, bytes_ in {**whole, **files}.items():
            (path / file).write_bytes(bytes_)
        if name == "older owner":
            assert content(path) == expected  # the complete record is counted again
        else:
            assert refused_or_unharmed(path, expected), name


@pytest.mark.parametrize("kind", AXES)
def test_two_records_that_change_places_are_refused(tmp_path, kind):
    path = made(tmp_path / "memory", kind)
    with Memory(path=path) as m:
        size = m._records.files[records.KINDS.index(kind)].record.itemsize
    whole = (path / kind).read_bytes()
    swapped = whole[size : 2 * size] + whole[:size] + whole[2 * size :]
    (path / kind).write_bytes(swapped)
    with pytest.raises(ValueError, match=f"record 0 of .*{kind} is damaged"):
        Memory(path=path)


@pytest.mark.parametrize("kind", AXES)
def test_what_is_undamaged_is_kept_by_an_explicit_call(tmp_path, kind):
    path = made(tmp_path / "memory", kind)
    expected = content(path)
    with Memory(path=path) as m:
        size = m._records.files[records.KINDS.index(kind)].record.itemsize
    damaged = bytearray((path / kind).read_bytes())
    damaged[2 * size + 9] ^= 1
    (path / kind).write_bytes(damaged)
    with pytest.raises(ValueError, match=f"record 2 of .*{kind}.*Memory.salvage"):
        Memory(path=path)
    assert Memory.salvage(path, tmp_path / "kept") == (5, 1)
    assert content(tmp_path / "kept") == [*expected[:2], *expected[3:]]
    with Memory(path=tmp_path / "kept") as m:  # and it is the same classifier's
        with pytest.raises(ValueError, match="one classifier"):
            m.answer(certificate(0, [50.0, 0.0], model="another"))
    (path / "owner").write_bytes(b"?")
    with pytest.raises(ValueError, match="cannot be read"):
        Memory.salvage(path, tmp_path / "none")


def test_a_lock_file_that_is_removed_lets_nobody_in(tmp_path):
    """The data itself is locked: nothing beside it can be removed."""
    with made_open(tmp_path) as m:
        for file in tmp_path.iterdir():
            if file.name not in ("owner", *records.KINDS):
                file.unlink()
        with pytest.raises(RuntimeError, match="is in use"):
            Memory(path=tmp_path)
        assert ask(m, 0, [50.0, 0.0]).event == "kept"


def made_open(path):
    m = Memory(path=path)
    ask(m, 0, [0.0, 0.0])
    return m


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_kill_while_a_region_is_written(tmp_path, monkeypatch, cut):
    """Killed before the number of regions is written.

    The answer was not given, and nothing else is lost.
    """
    m = filled(tmp_path)

    def killed(self, prediction, axes, center):
        self.file.seek(self.count * self.record.itemsize)
        self.file.write(b"\xff" * cut)
        self.file.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.RecordFile, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(m, 2, [9.0, 0.0])
    m.close()
    with Memory(path=tmp_path) as m:
        assert len(m) == 3
        assert ask(m, 3, [9.0, 0.0]).event == "kept"
    with Memory(path=tmp_path) as m:
        assert ask(m, 2, [9.0, 0.0]).prediction == 3


def test_a_killed_process_loses_no_answer(tmp_path):
    script = textwrap.dedent(f"""
        from types import SimpleNamespace
        import torch
        from ancer import Memory, Region
        from ancer.classifier import Evaluation
        m = Memory(path={str(tmp_path)!r})
        evaluation = Evaluation("", "", "", "", "", 1, "", 1, "")
        for i in range(100_000):
            x = torch.tensor([float(i), 0.0], dtype=torch.float64)
            region = Region(x, torch.tensor(0.25), 2)
            query = SimpleNamespace(
                prediction=i % 2, center=x, evaluation=evaluation, norm=2, region=region,
                lattice=None,
            )
            print(i, m.answer(query).prediction, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    answers = [process.stdout.readline().split() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    answers += [line.split() for line in process.stdout.read().splitlines()]
    process.stdout.close()
    process.wait()
    with Memory(path=tmp_path) as m:
        assert len(answers) <= len(m) <= len(answers) + 1
        evaluation = Evaluation("", "", "", "", "", 1, "", 1, "")
        for i, prediction in answers:
            query = certificate(9, [float(i), 0.0])
            query.evaluation = evaluation
            assert m.answer(query).prediction == int(prediction)


def test_stays_within_the_limit(tmp_path):
    for path in (None, tmp_path):
        with Memory(path=path, limit=130) as m:
            for i in range(3):
                ask(m, 0, [float(4 * i), 0.0])  # 40 bytes each
            with pytest.raises(MemoryError, match="limit of 130"):
                ask(m, 0, [50.0, 0.0])
            assert (len(m), m.nbytes) == (3, 120)
            assert ask(m, 1, [0.5, 0.0]).prediction == 0  # what needs no room is still answered


def test_what_10_000_regions_of_image_net_cost():
    """The docstring's numbers."""
    n = 150_528
    isotropic, anisotropic = (
        np.dtype(
            [
                ("prediction", "<i8"),
                ("axes", "<f4", (w,)),
                ("center", "<f4", (n,)),
                ("checksum", "V", records.CHECK),
            ]
        )
        for w in (1, n)
    )
    assert f"{1e-9 * 10_000 * isotropic.itemsize:.1f}" == "6.0"
    assert f"{1e-9 * 10_000 * anisotropic.itemsize:.1f}" == "12.0"
    assert "6.0 GB if isotropic, 12.0 GB if anisotropic" in " ".join(Memory.__doc__.split())
    with Memory() as m:
        ask(m, 0, torch.zeros(n), 0.5, dtype=torch.float32)
        ask(m, 0, torch.zeros(n), torch.full((n,), 0.5), dtype=torch.float32)
        assert m.nbytes == isotropic.itemsize + anisotropic.itemsize


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"norm": 3}, "norm must be 1, 2 or None, found 3"),
        ({"shrink": "both"}, "shrink must be one of"),
        ({"limit": 0}, "limit must be a number of bytes > 0, found 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Memory(**options)


def test_certificates_of_two_evaluations_of_a_classifier_never_mix():
    with Memory() as m:
        region = Region(torch.zeros(2), 1.0, 2)
        anonymous = Certificate(0, torch.full((2,), 9.0).double(), 2, None, evaluation=None)
        anonymous.region = Region(anonymous.center, 1.0, 2)
        m.answer(anonymous)  # says nothing of its evaluation
        m.answer(Certificate(0, torch.zeros(2).double(), 2, region))
        for name, value in {"model": "another", "dtype": "bfloat16", "batch_size": 1}.items():
            with pytest.raises(ValueError, match=f"for one classifier.*{value}"):
                query = certificate(0, [0.0, 0.0])
                query.evaluation = dataclasses.replace(EVALUATION, **{name: value})
                m.answer(query)
        assert len(m) == 2


def test_a_folder_takes_no_certificate_that_does_not_name_its_classifier(tmp_path):
    with Memory(path=tmp_path) as m:
        anonymous = Certificate(ABSTAIN, torch.zeros(2), 2, None, evaluation=None)
        with pytest.raises(ValueError, match="does not name its evaluation"):
            m.answer(anonymous)
        assert len(m) == 0


def test_bad_certificates():
    with Memory() as m:
        with pytest.raises(ValueError, match="not finite"):
            ask(m, ABSTAIN, [float("nan"), 0.0])
        ask(m, 0, [0.0, 0.0], dtype=torch.float32)
        with pytest.raises(ValueError, match="for norm 2, found a certificate for 1"):
            ask(m, 0, [0.0, 0.0], norm=1, dtype=torch.float32)
        with pytest.raises(ValueError, match=r"for shape \[2\], not \[3\]"):
            ask(m, 0, [0.0, 0.0, 0.0], dtype=torch.float32)
        with pytest.raises(ValueError, match="not float32"):
            ask(m, 0, [0.1, 0.0])
        with pytest.raises(ValueError, match="abstains or has a region"):
            m.answer(Certificate(0, torch.zeros(2), 2, None))
        assert len(m) == 1
    with Memory(norm=1) as m, pytest.raises(ValueError, match="for norm 1"):
        ask(m, 0, [0.0, 0.0])
    with Memory() as m, pytest.raises(ValueError, match="up to 1,000,000 coordinates"):
        ask(m, ABSTAIN, torch.zeros(1_000_001))
