"""The Noise class and the eager specification of its draws; the fused kernels are held to it in test_reparameterize."""

import math
from typing import Any

import pytest
import torch
from scipy import stats

import fastvae
from fastvae import Noise
from fastvae.reference import philox4x32, standard_normal
from fastvae.reference.noise import uniform

# philox4x32 10, from kat_vectors of Random123 1.14 (Salmon et al. 2011): counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key: str, result: str) -> None:
    assert philox4x32(words(counter), words(key)) == words(result)  # type: ignore[arg-type]


def philox_in_python_integers(counter: list[int], key: list[int]) -> list[int]:
    for _ in range(10):
        low = 0xD2511F53 * counter[0]
        high = 0xCD9E8D57 * counter[2]
        counter = [(high >> 32) ^ counter[1] ^ key[0], high % 2**32, (low >> 32) ^ counter[3] ^ key[1], low % 2**32]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@pytest.mark.parametrize("row_offset", [0, 3, 2**36 + 5])
@pytest.mark.parametrize("columns", [1, 4, 7])
def test_draw_follows_the_specification_word_for_word(columns: int, row_offset: int) -> None:
    seed = 2**40 + 12345
    step = 2**31 + 9
    stream = 6
    drawn = Noise(seed, step, row_offset, stream=stream).draw((5, columns), torch.float64)
    for row in range(5):
        for column in range(columns):
            element = (row_offset + row) * columns + column
            quad, lane = divmod(element, 4)
            block = philox_in_python_integers(
                [quad % 2**32, quad // 2**32, step, stream], [seed % 2**32, seed // 2**32]
            )
            # The one rounding of the specification: an integer to fp32. Both steps after it are exact, or nearly so.
            radius, angle = (
                float(torch.tensor(float(torch.tensor(word).float()) * 2.0**-32 + 2.0**-33).float())
                for word in (block[lane // 2 * 2], block[lane // 2 * 2 + 1])
            )
            turn = math.cos if lane % 2 == 0 else math.sin
            expected = math.sqrt(-2 * math.log(radius)) * turn(2 * math.pi * angle)
            assert drawn[row, column].item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_uniforms_end_above_zero_and_at_one() -> None:
    assert uniform(torch.tensor([0, 1, 2**32 - 1])).tolist() == [2.0**-33, 1.5 * 2.0**-32, 1.0]


def test_a_fixed_draw_never_changes() -> None:
    # A change here changes every user's curve: it needs a new major version.
    drawn = Noise(seed=0, step=0).draw((1, 4), torch.float64).flatten().tolist()
    w = [int(word, 16) for word in KNOWN_ANSWERS[0][2].split()]
    u = [(word + 0.5) / 2**32 for word in w]  # to 24 bits: fp32 rounds the word
    expected = [
        math.sqrt(-2 * math.log(u[pair])) * turn(2 * math.pi * u[pair + 1])
        for pair in (0, 2)
        for turn in (math.cos, math.sin)
    ]
    assert drawn == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 20])
def test_any_split_of_the_batch_draws_the_same(columns: int) -> None:
    whole = Noise(5, 6).draw((13, columns))
    for size in (1, 2, 5, 12):
        parts = [Noise(5, 6, row_offset=at).draw((min(size, 13 - at), columns)) for at in range(0, 13, size)]
        assert torch.equal(torch.cat(parts), whole)


def test_only_the_number_of_elements_of_a_row_matters() -> None:
    assert torch.equal(Noise(1).draw((4, 3, 2, 2)).flatten(1), Noise(1).draw((4, 12)))


def test_empty_draws() -> None:
    assert Noise(1).draw((0, 5)).shape == (0, 5)
    assert Noise(1, row_offset=3).draw((5, 0)).shape == (5, 0)


@pytest.fixture(scope="module")
def draws() -> dict[str, torch.Tensor]:
    """2**20 numbers from neighbouring keys."""
    shape = (2**18, 4)
    return {
        "base": Noise(1, 1).draw(shape, torch.float64).flatten(),
        "next seed": Noise(2, 1).draw(shape, torch.float64).flatten(),
        "high seed": Noise(1 + 2**32, 1).draw(shape, torch.float64).flatten(),
        "next step": Noise(1, 2).draw(shape, torch.float64).flatten(),
        "next stream": Noise(1, 1, stream=1).draw(shape, torch.float64).flatten(),
        "next rows": Noise(1, 1, row_offset=2**18).draw(shape, torch.float64).flatten(),
    }


def test_draws_are_standard_normal(draws: dict[str, torch.Tensor]) -> None:
    for drawn in draws.values():
        n = drawn.numel()
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs(drawn.pow(power).mean().item() - moment) < 4.5 * math.sqrt(variance / n)
        assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3
        # Each lane by itself, too: two come from cosines, two from sines.
        for lane in range(4):
            assert stats.kstest(drawn[lane::4].numpy(), "norm").pvalue > 1e-3


def test_keys_lanes_and_neighbours_are_independent(draws: dict[str, torch.Tensor]) -> None:
    base = draws["base"]
    limit = 4.5 / math.sqrt(base.numel())
    for name, drawn in draws.items():
        if name != "base":
            assert abs(torch.corrcoef(torch.stack((base, drawn)))[0, 1].item()) < limit, name
    for lag in (1, 2, 3, 4, 8):
        assert abs((base[lag:] * base[:-lag]).mean().item()) < limit
    lanes = base.reshape(-1, 4).T
    # Squares as well: lanes of one Box-Muller pair share a radius, and are uncorrelated only if it is used right.
    for rows in (lanes, lanes.square()):
        off_diagonal = torch.corrcoef(rows) - torch.eye(4)
        assert off_diagonal.abs().max().item() < 2 * limit


def test_fp32_is_fp64_rounded_once() -> None:
    exact = Noise(9, 1).draw((4096, 4), torch.float64)
    assert torch.equal(Noise(9, 1).draw((4096, 4)), exact.float())


def test_advance_moves_the_step_in_place_and_a_shared_state_sees_it() -> None:
    noise = Noise(3, 4)
    other = Noise.from_state(noise.state, 2, stream=1)
    noise.advance()
    noise.advance(5)
    assert noise.state.tolist() == [3, 10]
    assert torch.equal(other.draw((3, 4)), Noise(3, 10, 2, stream=1).draw((3, 4)))


def test_draw_is_standard_normal_of_the_state() -> None:
    noise = Noise(3, 4, 2, stream=1)
    assert torch.equal(noise.draw((3, 4)), standard_normal(torch.tensor([3, 4]), (3, 4), 2, 1))


def test_noise_lives_where_it_is_put(device: str) -> None:
    noise = fastvae.Noise(1, device=device)
    assert noise.state.device.type == device
    assert noise.draw((2, 3)).device.type == device
    assert torch.equal(noise.draw((64, 3)).cpu(), Noise(1).draw((64, 3))) or device == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed must be in \[0, 2\*\*63\), not -1"),
        ({"seed": 2**63}, r"seed must be in \[0, 2\*\*63\), not 9223372036854775808"),
        ({"seed": 0, "step": -1}, r"step must be in \[0, 2\*\*32\), not -1"),
        ({"seed": 0, "step": 2**32}, r"step must be in \[0, 2\*\*32\), not 4294967296"),
        ({"seed": 0, "row_offset": -2}, r"row_offset must not be negative, but is -2"),
        ({"seed": 0, "stream": 2**31}, r"stream must be in \[0, 2\*\*31\), not 2147483648"),
        ({"seed": 0, "stream": -1}, r"stream must be in \[0, 2\*\*31\), not -1"),
    ],
)
def test_a_key_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Noise(**arguments)


@pytest.mark.parametrize("state", [torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.tensor(1)], ids=str)
def test_a_state_of_another_kind_is_refused(state: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=rf"state must be int64 of shape \(2,\), not {state.dtype} of "):
        Noise.from_state(state)
