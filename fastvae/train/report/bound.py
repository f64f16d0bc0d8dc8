"""The relation of a reported negative ELBO to ``-log p(x)``, in words: constants that it lacks, and objections."""

from torch import Tensor

from fastvae.nn import Likelihood


def describe_bound(loss: float, likelihood: Likelihood, images: Tensor) -> str:
    """Say whether a negative ELBO is an upper bound of ``-log p(x)``, and what its nll leaves out.

    Args:
        loss: the negative ELBO in nats per image.
        likelihood: the one that its nll is of.
        images: (n, C, H, W), some of those that it was measured on.
    """
    constant = likelihood.left_out(images[0].numel())
    objection = likelihood.objection(images)
    text = "an upper bound on -log p(x)" if objection is None else f"not a bound on -log p(x): {objection}"
    if constant == 0:
        return text
    return f"{text}, with the {constant:.2f} nats per image that nll leaves out: {loss + constant:.2f} nats"
