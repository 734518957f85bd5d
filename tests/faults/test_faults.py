"""The operator under fire: whatever happens, nothing is lost, double or wrong, and no status was ever untrue."""

from collections.abc import Callable

import pytest

from faults.catalogue import FAULTS, Fault
from faults.runner import run_fault, to_properties
from faults.world import LONG, Stage


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_exports_end_with_true_status_after_fault(
    fault: Fault, stage: Stage, record_property: Callable[[str, object], None]
) -> None:
    if fault.only_long and stage.size is not LONG:
        pytest.skip("in `make faults` only")
    row, complaints = run_fault(fault, stage)
    record_property("row", to_properties(row))
    assert not complaints, "\n".join(complaints)
