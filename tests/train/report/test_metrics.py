"""Metrics are sums divided by the images that were not left out."""

import math

import torch

from fastvae.train.report.metrics import Metrics


def test_sums_become_means_in_their_order():
    assert Metrics.from_sums(torch.tensor([12.0, 8.0, 4.0]), 4) == Metrics(loss=3.0, nll=2.0, kl=1.0)


def test_images_of_skipped_steps_do_not_count():
    assert Metrics.from_sums(torch.tensor([12.0, 8.0, 4.0, 6.0]), 10) == Metrics(loss=3.0, nll=2.0, kl=1.0)


def test_no_images_have_no_mean():
    for images, sums in ((0, [0.0, 0.0, 0.0]), (5, [0.0, 0.0, 0.0, 5.0])):
        assert all(map(math.isnan, Metrics.from_sums(torch.tensor(sums), images)))
