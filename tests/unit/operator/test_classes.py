import pytest

from modelexport.spec import ExportClass, parse_export
from modelexport_operator.classes import find_class
from unit.operator.objects import make_class, make_export


@pytest.mark.parametrize("order", [1, -1])
def test_of_default_classes_of_the_same_age_the_last_by_name_serves(order: int) -> None:
    found = find_class(parse_export(make_export()), [make_class("a"), make_class("b")][::order])
    assert isinstance(found, ExportClass)
    assert found.name == "b"


def test_a_class_without_any_annotation_serves_whoever_names_it_and_nobody_else() -> None:
    bare = make_class("bare")
    del bare["metadata"]["annotations"]
    assert isinstance(find_class(parse_export(make_export(className="bare")), [bare]), ExportClass)
    assert not isinstance(find_class(parse_export(make_export()), [bare]), ExportClass)
