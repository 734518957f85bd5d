"""The page of faults is generated and complete, and its links work."""

import re
from dataclasses import replace

from faults.catalogue import FAULTS
from faults.page import PAGE, build_page, read_page
from faults.runner import Row

ROW = Row(FAULTS[0].name, 40, 0, 1, 2, 3, 4, 5, 12.34, 90.0)


def test_page_shows_measured_and_unmeasured_faults() -> None:
    page = build_page([ROW])
    assert f"| {ROW.fault} | 40 | 0 | 1 | 2 | 3 | 4 | 5 | 12.3 | 90 |" in page
    assert f"| {FAULTS[1].name} | - | - | - | - | - | - | - | - | 90 |" in page


def test_page_is_read_back_without_unmeasured_faults() -> None:
    (found,) = read_page(build_page([ROW]))
    assert found == replace(ROW, seconds=12.3)


def test_committed_page_matches_suite() -> None:
    advice = build_page([]).partition("## What happens")[2]
    assert PAGE.read_text().endswith(advice)


def test_every_linked_runbook_exists() -> None:
    links = set(re.findall(r"\]\((runbooks/[^)]+)\)", build_page([])))
    assert links
    assert [link for link in sorted(links) if not (PAGE.parent / link).exists()] == []


def test_fault_names_are_unique() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
