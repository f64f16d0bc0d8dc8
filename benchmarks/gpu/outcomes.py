"""A plugin of pytest: each test's end is written at once, so that a run that is killed has told what it knew.

``FASTVAE_OUTCOMES`` names the file: a line of JSON for each test that starts or ends.
"""

import json
import os
from pathlib import Path
from typing import Any


def _write(**content: Any) -> None:
    with open(os.environ["FASTVAE_OUTCOMES"], "a") as file:
        file.write(json.dumps(content) + "\n")


def _is_worker() -> bool:  # of xdist, whose reports the main process has, too
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
    """The first line of what was raised, or else the last of what would be shown."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr).strip().rpartition("\n")[2] if crash is None else crash.message.partition("\n")[0]
    return text[:200]


def read(file: Path) -> dict[str, dict[str, str]]:
    """The last that is known of each test, by its name; one that failed stays so."""
    found: dict[str, dict[str, str]] = {}
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            outcome = json.loads(text)
        except ValueError:  # cut off by the kill
            continue
        if found.get(outcome["test"], {}).get("outcome") != "failed":
            found[outcome["test"]] = outcome
    return found
