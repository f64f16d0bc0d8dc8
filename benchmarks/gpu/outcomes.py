"""A pytest plugin that writes each outcome at once, so that a killed run leaves the outcomes it had.

``FASTVAE_OUTCOMES`` names the file: a line of JSON for each test that starts or ends.
"""

import json
import os
from pathlib import Path
from typing import Any


def _write(**content: Any) -> None:
    with open(os.environ["FASTVAE_OUTCOMES"], "a") as file:
        file.write(json.dumps(content) + "\n")


def _is_worker() -> bool:  # of xdist; the main process reports its tests, too
    return "PYTEST_XDIST_WORKER" in os.environ


def pytest_runtest_logstart(nodeid: str) -> None:
    if not _is_worker():
        _write(test=nodeid, outcome="started")


def pytest_runtest_logreport(report: Any) -> None:
    if _is_worker() or (report.when != "call" and report.passed):
        return
    _write(test=report.nodeid, outcome=report.outcome, why=_why(report) if report.failed else "")


def pytest_collectreport(report: Any) -> None:
    if report.failed and not _is_worker():
        _write(test=report.nodeid, outcome="failed", why=_why(report))


def _why(report: Any) -> str:
    """Return the first line of the exception's message, or else the last line of the report."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr).strip().rpartition("\n")[2] if crash is None else crash.message.partition("\n")[0]
    return text[:200]


def read(file: Path) -> dict[str, dict[str, str]]:
    """Return the last outcome of each test by name. A failure is never overwritten."""
    found: dict[str, dict[str, str]] = {}
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            outcome = json.loads(text)
        except ValueError:  # cut off when pytest was killed
            continue
        if found.get(outcome["test"], {}).get("outcome") != "failed":
            found[outcome["test"]] = outcome
    return found
