"""Whole training loops by ``fastvae bench``: the tutorial's, torch's fastest, fastvae's, and the floor."""

import json

from .section import Section

# Without those that compile for minutes, and those that "one graph" beats.
CONTENDERS = (
    "tutorial",
    "torch fp32, one graph",
    "torch bf16, eager",
    "torch bf16, compile",
    "torch bf16, one graph",
    "torch bf16, compile, one graph",
    "fastvae train",
    "fastvae fp32, traced",
    "fastvae bf16, traced",
    "fastvae bf16, compiled",
    "floor, *",
)
DRY = ("tutorial", "torch fp32, eager", "fastvae fp32, traced", "floor, fp32")


def run(section: Section) -> str:
    file = section.folder / "bench.json"
    preset, steps, laps = ("leaky", 100, 8) if section.data == "mnist" else ("classic", 5, 2 if section.dry else 8)
    flags = ["--preset", preset, "--steps", str(steps), "--epochs", str(laps), "--json", str(file)]
    flags += ["--contenders", *(DRY if section.dry else CONTENDERS)]
    done = section.fastvae("bench", "bench", *section.data_flags, *section.device_flags, *flags).wait()
    if not file.exists():
        section.fail(f"fastvae bench: status {done.status}: {done.last_line}")
        return "no race"
    comparison = json.loads(file.read_text())["comparisons"][0]
    section.keep(comparison=comparison)
    for objection in comparison["void"]:
        section.fail(f"void: {objection}")
    loops = {loop["name"]: loop for loop in comparison["contenders"]}
    best = min((loop for loop in loops.values() if loop["kind"] == "fastvae"), key=lambda loop: loop["median_s"])
    return (
        f"{preset}: {best['name']} {1e6 * best['median_s']:.0f} us a step, {best['to_baseline']:.2f}x the tutorial, "
        f"{best['to_torch']:.2f}x torch's fastest, {best['of_floor'] or 0:.2f} of the floor"
    )
