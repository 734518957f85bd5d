"""Kubernetes quantities: ``500m`` of a CPU, ``3072Mi`` of memory, ``2`` GPUs.

The format is that of apimachinery's ``resource.Quantity``: a decimal, then a power of 1000 (``n u m k M G T P E``), a
power of 1024 (``Ki Mi Gi Ti Pi Ei``) or an exponent of ten (``e3``, ``E3``).
"""

import re
from fractions import Fraction
from functools import lru_cache

from modelexport.text import quote

PATTERN = re.compile(r"\+?(?P<number>\d+\.?\d*|\.\d+)(?P<unit>[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,2})?")
SCALES = {
    "": Fraction(1),
    **{unit: Fraction(1000) ** power for power, unit in enumerate("num kMGTPE", start=-3) if unit != " "},
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def parse_quantity(value: object) -> Fraction:
    """Return a quantity in its base unit: CPUs, bytes, devices.

    Raises:
        ValueError: the value is not a Kubernetes quantity of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{quote(value)} is not a Kubernetes quantity")
    return _parse(value)


@lru_cache(maxsize=1024, typed=True)
def _parse(value: int | str) -> Fraction:
    """Parse a quantity, cached: a cluster has few different ones, and every choice of a pool reads them."""
    found = PATTERN.fullmatch(str(value))
    if found is None:
        raise ValueError(f"{quote(value)} is not a Kubernetes quantity")
    unit = found["unit"] or ""
    scale = SCALES[unit] if unit in SCALES else Fraction(10) ** int(unit[1:])
    return Fraction(found["number"]) * scale
