"""The section for ``python -m fastvae.parity``: the engine against the eager reference loop in fp64."""

import sys

from .section import Section


def run(section: Section) -> str:
    command = [sys.executable, "-m", "fastvae.parity", "--preset", "classic", *section.data_flags]
    command += [*section.device_flags, "--steps", "4" if section.dry else "60"]
    done = section.start("parity", command).wait()
    lines = [text.rstrip() for text in done.text.splitlines() if text.strip()]
    section.keep(table=lines)
    if done.status == 0:
        return done.last_line
    for text in [text for text in lines if ": " in text and not text.startswith("classic on")] or lines[-1:]:
        section.fail(text)
    return "not all agree"
