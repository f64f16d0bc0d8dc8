"""``classic`` on MNIST in fp32 and bf16: its test loss must match public logs of pytorch/examples' network."""

from . import runs
from .section import Section

PUBLISHED, WITHIN = 105.6, 0.5  # nats of test loss after 10 epochs


def run(section: Section) -> str:
    found = {}
    for precision in ("fp32",) if section.dry else ("fp32", "bf16"):
        flags = ["--preset", "classic", "--precision", precision, "--execution", "traced"]
        found[precision] = runs.train(section, f"classic-{precision}", *flags, *(["--epochs", "2"] * section.dry))
        section.keep(runs=found)
    done = {precision: row for precision, row in found.items() if row is not None}
    told = ", ".join(f"{precision} {row['loss']:.2f} in {row['seconds']} s" for precision, row in done.items())
    if section.data != "mnist":
        return f"{told}; {PUBLISHED} not checked: no MNIST"
    for precision, row in done.items():
        if not abs(row["loss"] - PUBLISHED) <= WITHIN:
            section.fail(f"{precision} ends at {row['loss']:.2f}, not at {PUBLISHED} +- {WITHIN}")
    return f"{told}; published {PUBLISHED} +- {WITHIN}"
