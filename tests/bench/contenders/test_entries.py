"""The contenders of a race, by device, flags and kind of lap."""

import importlib.util

import pytest
import torch

from fastvae.bench.contenders import entries as entries_module
from fastvae.bench.contenders import graphs
from fastvae.bench.contenders.entries import against_pythae, contenders, left_out, select
from fastvae.bench.contenders.workload import Workload
from fastvae.data import Dataset
from fastvae.models import PRESETS
from fastvae.utils.errors import InputError

IMAGES = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)


def workload(device="cpu", steps=None):
    return Workload("classic", PRESETS["classic"], Dataset("made", IMAGES, IMAGES), 5, torch.device(device), steps)


@pytest.fixture(params=[False, True])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(entries_module, "has_fast_bf16", lambda device: request.param)
    return request.param


def pretend_installed(monkeypatch, *packages):
    """Pretend that of jax and optax, those are installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (name if name in packages else None) if name in ("jax", "optax") else find(name, *rest),
    )


@pytest.fixture(autouse=True)
def _without_jax(monkeypatch):
    pretend_installed(monkeypatch)


def names(entries):
    return [entry.name for entry in entries]


def test_on_a_cpu(has_bf16):
    low = lambda *given: list(given) if has_bf16 else []  # noqa: E731
    assert names(contenders(workload(), compiled=False)) == [
        "tutorial", "tutorial, 2 workers", "torch fp32, eager", *low("torch bf16, eager"), "fastvae train",
        "fastvae fp32, eager", "fastvae fp32, traced", *low("fastvae bf16, eager", "fastvae bf16, traced"),
        "floor, fp32", *low("floor, bf16"),
    ]  # fmt: skip
    more = set(names(contenders(workload()))) - set(names(contenders(workload(), compiled=False)))
    assert more == {
        "torch fp32, compile", "fastvae fp32, compiled", *low("torch bf16, compile", "fastvae bf16, compiled"),
    }  # fmt: skip


def test_in_slices_no_workers_fetch_on_during_the_turns_of_others():
    assert [name for name in names(contenders(workload(steps=1))) if "tutorial" in name] == ["tutorial"]


def test_on_a_gpu_torch_has_its_fastest_forms(monkeypatch):
    monkeypatch.setattr(entries_module, "has_fast_bf16", lambda device: False)
    monkeypatch.setattr(graphs, "captures", lambda device: True)
    found = [name for name in names(contenders(workload("cuda"))) if name.startswith("torch")]
    modes = ["eager", "compile", "compile, reduce-overhead", "compile, max-autotune", "one graph", "compile, one graph"]
    assert found == [f"torch fp32, {mode}" for mode in modes]


def test_against_pythae_torch_and_the_tutorial_have_no_part(has_bf16):
    assert {entry.kind for entry in against_pythae(workload())} == {"pythae", "fastvae", "floor"}


def test_patterns_choose_whole_names_in_every_field():
    fields = contenders(workload(), compiled=False), against_pythae(workload(), compiled=False)
    assert [names(field) for field in select(("tutorial", "fastvae t*"), *fields)] == [
        ["tutorial", "fastvae train"],
        ["fastvae train"],
    ]
    assert select((), *fields) == list(fields)
    with pytest.raises(InputError, match=r"--contenders 'torch' matches none of 'tutorial', 'tutorial, 2 workers', "):
        select(("torch",), *fields)


def test_jax_races_in_each_precision_where_it_is_installed(has_bf16, monkeypatch):
    before = names(contenders(workload(), compiled=False))
    pretend_installed(monkeypatch, "jax", "optax")
    after = names(contenders(workload(), compiled=False))
    assert left_out(torch.device("cpu")) == {}
    assert [name for name in after if name not in before] == ["jax fp32", *(["jax bf16"] if has_bf16 else [])]
    assert {entry.kind for entry in contenders(workload()) if entry.name.startswith("jax")} == {"jax"}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((), "jax and optax are not installed: pip install fastvae[jax]"),
        (("jax",), "optax is not installed: pip install fastvae[jax]"),
        (("optax",), "jax is not installed: pip install fastvae[jax]"),
    ],
)
def test_without_jax_its_loops_are_left_out_and_asked_for_refused(found, said, has_bf16, monkeypatch):
    pretend_installed(monkeypatch, *found)
    here = contenders(workload(), compiled=False)
    absent = left_out(torch.device("cpu"))
    assert absent == dict.fromkeys(["jax fp32", *(["jax bf16"] if has_bf16 else [])], said)
    assert select((), here, absent=absent) == [here]
    assert select(("*fp32*",), here, absent=absent) != [[]]  # others match it too
    for pattern in ("jax*", "jax fp32"):
        with pytest.raises(InputError) as caught:
            select(("tutorial", pattern), here, absent=absent)
        assert str(caught.value) == f"--contenders {pattern!r}: {said}"


def test_a_jax_without_a_gpu_does_not_race_on_one(monkeypatch):
    pretend_installed(monkeypatch, "jax", "optax")
    monkeypatch.setattr(entries_module, "has_fast_bf16", lambda device: False)
    for has_gpu in (False, True):
        monkeypatch.setattr(entries_module, "_jax_has_gpu", lambda has_gpu=has_gpu: has_gpu)
        absent = left_out(torch.device("cuda"))
        assert absent == ({} if has_gpu else {"jax fp32": "jax has no GPU here: pip install 'jax[cuda13]'"})
        assert ("jax fp32" in names(contenders(workload("cuda")))) == has_gpu
