"""Applying and undoing, on a module made for it."""

from types import ModuleType

import pytest

from fastvae.patch import Patch


@pytest.fixture
def shop():
    shop = ModuleType("shop")
    shop.price = lambda: 3
    return shop


def double(original):
    return lambda: 2 * original()


def test_a_call_stays_until_it_is_undone_and_undoing_again_does_nothing(shop):
    original = shop.price
    undo = Patch((shop, "price", double))
    assert shop.price() == 6
    undo()
    assert shop.price is original
    undo()
    assert shop.price is original


def test_an_exception_inside_undoes_too(shop):
    original = shop.price
    with pytest.raises(ZeroDivisionError), Patch((shop, "price", double)):
        shop.price(1 / 0)
    assert shop.price is original


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nested_patches_replace_once_and_end_with_the_last(shop, order):
    original = shop.price
    patches = [Patch((shop, "price", double)), Patch((shop, "price", double))]
    patches[order[0]]()
    patches[order[0]]()  # its own count, not the other's
    assert shop.price() == 6
    patches[order[1]]()
    assert shop.price is original


def test_what_cannot_be_made_changes_nothing(shop):
    original = shop.price
    with pytest.raises(KeyError):
        Patch((shop, "price", double), (shop, "missing", double))
    assert shop.price is original


def test_a_later_replacement_by_somebody_else_is_not_overwritten(shop):
    original = shop.price
    undo = Patch((shop, "price", double))
    ours, shop.price = shop.price, lambda: 0
    with pytest.raises(RuntimeError, match=r"shop\.price was replaced again .*: undo that patch first"):
        undo()
    assert shop.price() == 0
    shop.price = ours
    undo()
    assert shop.price is original
