from fractions import Fraction
from typing import Any

import pytest

from modelexport.api.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        (2, 2),
        ("+1", 1),
        ("500m", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1.", 1),
        ("1500u", Fraction(3, 2000)),
        ("7n", Fraction(7, 10**9)),
        ("2k", 2000),
        ("1M", 10**6),
        ("1G", 10**9),
        ("1E", 10**18),
        ("3072Mi", 3 * 2**30),
        ("16305052Ki", 16305052 * 1024),
        ("1Ei", 2**60),
        ("129e6", 129_000_000),
        ("1E3", 1000),
        ("5e-1", Fraction(1, 2)),
    ],
)
def test_quantity_parses_as_in_kubernetes(text: Any, amount: Any) -> None:
    assert parse_quantity(text) == amount


@pytest.mark.parametrize("value", ["", "-1", "1 Gi", "1GB", "Gi", "1e", "1mi", "1K", ".", True, 1.5, None, [], "1\n"])
def test_invalid_quantity_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity"):
        parse_quantity(value)
