"""A run that stops after an epoch and resumes: it must equal the uninterrupted run to the bit."""

from typing import Any

from fastvae.train.checkpoint import checkpoint

from . import engines
from .section import Command, Section

PRECISIONS = ("fp32", "bf16")


def run(section: Section) -> str:
    precisions = PRECISIONS[:1] if section.dry else PRECISIONS
    for stage in (("whole", "parts"), ("resumed",)):  # the runs of a stage run at once
        started = [start(section, precision, part) for precision in precisions for part in stage]
        for command in started:
            done = command.wait()
            if done.status != 0:
                section.fail(f"{command.name}: status {done.status}: {done.last_line}")
    if section.failures:
        return "a run failed"
    found = {precision: compared(section, precision) for precision in precisions}
    section.keep(runs=found)
    for precision, row in found.items():
        if row["tensors_apart"]:
            section.fail(f"{precision}: {row['tensors_apart']} tensors differ, by {row['largest']:.1e} at most")
    return f"{' and '.join(precisions)}: {'differ' if section.failures else 'the same bits'} after two epochs"


def start(section: Section, precision: str, part: str) -> Command:
    """Start a run of two epochs, of the first one only, or resumed for the second."""
    flags = ["--preset", "classic", "--precision", precision, "--execution", "traced", "--no-autotune"]
    flags += ["--epochs", "1" if part == "parts" else "2", *(["--resume"] if part == "resumed" else [])]
    out = section.folder / f"{precision}-{'whole' if part == 'whole' else 'parts'}"
    name = f"{precision}-{part}-run"
    return section.fastvae(name, "train", *section.data_flags, *section.device_flags, "--out", str(out), *flags)


def compared(section: Section, precision: str) -> dict[str, Any]:
    """Compare the last checkpoints: weights, moments, noise and counters."""
    whole, parts = (
        checkpoint.newest(section.folder / f"{precision}-{part}" / "checkpoints")[1].tensors
        for part in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    apart, largest = engines.difference(parts.values(), (whole[name] for name in parts))
    return {"tensors": len(parts), "tensors_apart": apart, "largest": largest}
