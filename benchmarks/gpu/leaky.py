"""``leaky`` for 30 epochs with default flags: the autotuner's choice, and seconds of start-up, per epoch and in all."""

import re

from . import runs
from .section import Section

CPU, WITHIN = 100.67, 1.0  # the test loss of README's table, in fp32 on a CPU


def run(section: Section) -> str:
    row = runs.train(section, "leaky", "--preset", "leaky", "--profile", *(["--epochs", "3"] * section.dry))
    if row is None:
        return "the run failed"
    text = (section.folder / "leaky.log").read_text()
    row["choice"] = next(iter(re.findall(r": (\w+, \w+ \(by trial.*?\));", text)), None)
    row["profile"] = next(iter(re.findall(r"^profile: (.*)", text, re.MULTILINE)), None)
    section.keep(run=row)
    told = f"{row['training_s']} s of training, {row['seconds']} s in all, test loss {row['loss']:.2f}"
    if section.data != "mnist":
        return f"{told}; {CPU} not checked: no MNIST"
    if not abs(row["loss"] - CPU) <= WITHIN:
        section.fail(f"it ends at {row['loss']:.2f}, not at the CPU's {CPU} +- {WITHIN}")
    return f"{told}; a CPU ends at {CPU}"
