"""jax as a contender: the same network, loss and optimiser as everybody's, in an environment that has jax."""

import json

import pytest
import torch

from fastvae.bench.config import raced_presets
from fastvae.bench.contenders.workload import Workload
from fastvae.bench.race import disagreements, race
from fastvae.cli import run
from fastvae.data import Dataset, load
from fastvae.models import PRESETS

jax = pytest.importorskip("jax", reason="jax is not installed: see `make adapters`")
pytest.importorskip("optax", reason="optax is not installed: see `make adapters`")

import numpy as np  # noqa: E402

from fastvae.bench.contenders.entries import contenders, select  # noqa: E402
from fastvae.bench.contenders.jax import network  # noqa: E402
from fastvae.bench.contenders.jax.loop import JaxLoop, loss_of, optimizer_of  # noqa: E402

CPU = torch.device("cpu")
RACED = [name for name in raced_presets() if PRESETS[name].image_size in (None, 28)]


def workload(preset="classic", batch_size=64, images=150, **options):
    digits = load("digits")
    dataset = Dataset("digits", digits.train[:images], digits.test[:50])
    return Workload(preset, PRESETS[preset], dataset, batch_size, CPU, **options)


def loss_and_gradients(here, model, precision, noise):
    """Return jax's loss of a batch, and its gradients by name, in torch's order of axes."""
    loss = loss_of(here, model, precision)
    x = network.pixels_of(here.images[:20], here.recipe.network).astype(np.float32) / 255
    value, gradient = jax.jit(jax.value_and_grad(loss))(network.weights_of(model), x, noise.numpy())
    copied = here.model(3)
    network.copy_back(gradient, copied)
    return float(value), dict(copied.named_parameters())


def reference(here, model, noise):
    recipe = here.recipe
    images = here.images[:20].to(next(model.parameters()).dtype) / 255
    options = {"reduction": recipe.reduction, "weight": recipe.loss_weight, "backend": "reference"}
    loss = model.loss(images, noise.to(images.dtype), **options).loss
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("preset", RACED)
def test_loss_and_gradients_are_the_reference_s(preset):
    here = workload(preset)
    model, exact = here.model(3), here.model(3).double()
    noise = torch.randn(20, here.recipe.latent_dim)
    value, gradients = loss_and_gradients(here, model, "fp32", noise)
    assert value == pytest.approx(reference(here, exact, noise), rel=2e-6)
    for name, weight in exact.named_parameters():
        scale = weight.grad.abs().max().item()
        torch.testing.assert_close(gradients[name].double(), weight.grad, rtol=0, atol=5e-6 * scale, msg=name)


@pytest.mark.parametrize("preset", RACED)
def test_in_bf16_gradients_point_where_fp32_s_do(preset):
    here = workload(preset)
    noise = torch.randn(20, here.recipe.latent_dim)
    exact, gradients = loss_and_gradients(here, here.model(3), "fp32", noise)
    low, rounded = loss_and_gradients(here, here.model(3), "bf16", noise)
    assert low == pytest.approx(exact, rel=2e-3)
    for name, gradient in gradients.items():
        assert torch.cosine_similarity(gradient.flatten(), rounded[name].flatten(), dim=0) > 0.98, name


@pytest.mark.parametrize("preset", RACED)
def test_weights_go_to_jax_and_back_unchanged(preset):
    source, target = workload(preset).model(0), workload(preset).model(1)
    network.copy_back(network.weights_of(source), target)
    assert all(map(torch.equal, source.parameters(), target.parameters()))


@pytest.mark.parametrize("preset", ["classic", "keras", "gaussian"])
def test_optax_updates_as_torchs_optimiser_does(preset):
    recipe = PRESETS[preset]
    values = torch.randn(7, requires_grad=True)
    theirs = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[recipe.optimizer](
        [values], lr=recipe.lr, **recipe.optimizer_options
    )
    ours = jax.numpy.asarray(values.detach().numpy())
    optimizer = optimizer_of(recipe)
    state = optimizer.init(ours)
    for step in range(5):
        values.grad = torch.randn(7) * 10.0 ** (-2 * step)
        updates, state = optimizer.update(values.grad.numpy(), state, ours)
        ours = ours + updates
        theirs.step()
        np.testing.assert_allclose(ours, values.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("preset", ["leaky", "conv28"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_and_its_weights_stay_fp32(preset, precision):
    here = workload(preset, batch_size=16)
    contender = JaxLoop(here, 0, precision)
    before = here.test_loss(contender.model)
    for epoch in range(4):
        assert len(list(contender.epoch(epoch))) == here.epoch_steps == 10
    assert here.test_loss(contender.model) < 0.8 * before
    assert {str(weight.dtype) for weight in contender._state[0].values()} == {"float32"}


@pytest.mark.parametrize(
    ("steps", "expected"), [(None, [2, 1]), (1, [1, 1]), (2, [1, 1, 1])], ids=["epoch", "slice", "slice to the end"]
)
def test_what_is_timed_is_one_scan_of_new_images(steps, expected, monkeypatch):
    here = workload(steps=steps)  # 64, 64 and 22 images
    contender = JaxLoop(here, 0, "fp32")
    taken = []

    def record(state, images, order):
        taken.append(order)
        return state, np.zeros(len(order))

    monkeypatch.setattr(contender, "_steps", record)
    contender.lap(0, steps, lambda: None)
    assert [len(order) for order in taken] == expected
    first = np.concatenate([order.ravel() for order in taken])
    assert len(np.unique(first)) == len(first) == (128 if steps == 1 else 150)
    taken.clear()
    contender.lap(1, steps, lambda: None)
    assert not np.array_equal(first, np.concatenate([order.ravel() for order in taken]))


def test_an_unknown_layer_is_told():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, dilation=2))
    with pytest.raises(NotImplementedError, match=r"encoder.0 is Conv2d, which the jax loop does not know"):
        network._layer(model, "encoder")


def test_jax_agrees_with_fastvae_after_a_race():
    here = workload("leaky", batch_size=25, images=500)
    (entries,) = select(("jax*", "fastvae fp32, eager"), contenders(here, compiled=False))
    results = race(here, entries, laps=2, seeds=1)
    assert {result.kind for result in results} == {"jax", "fastvae"}
    assert disagreements(results) == []


def test_jax_in_the_table_and_the_file(tmp_path, capsys):
    flags = [
        "bench",
        "--data",
        "digits",
        "--preset",
        "classic",
        "--device",
        "cpu",
        "--batch-size",
        "256",
        "--steps",
        "2",
    ]
    flags += ["--epochs", "1", "--json", str(tmp_path / "b.json"), "--contenders", "jax fp32", "fastvae fp32, eager"]
    assert run(flags) == 0
    output = capsys.readouterr().out
    assert "x jax" in output
    assert "left out" not in output
    written = json.loads((tmp_path / "b.json").read_text())
    ours, theirs = sorted(written["comparisons"][0]["contenders"], key=lambda row: row["kind"])
    assert (ours["kind"], theirs["kind"]) == ("fastvae", "jax")
    assert ours["to_jax"] == pytest.approx(theirs["median_s"] / ours["median_s"])
    assert written["versions"]["jax"] == jax.__version__
