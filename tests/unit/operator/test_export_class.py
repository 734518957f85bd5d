import pytest

from modelexport.fields import InvalidSpec
from modelexport.reasons import Reason
from modelexport.spec import ExportClass, parse_class, parse_export
from modelexport_operator.classes import find_class
from modelexport_operator.pods import Finding
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


@pytest.mark.parametrize("named", [{}, {"className": "a"}])
def test_a_class_serves_the_namespaces_that_it_names_and_no_other(named: dict[str, str]) -> None:
    export = parse_export(make_export(**named))
    for namespaces in (["team"], ["vision", "team"]):
        assert isinstance(find_class(export, [make_class("a", allowedNamespaces=namespaces)]), ExportClass)
    for namespaces in (["vision"], ["teams", "tea", "team-2"]):
        found = find_class(export, [make_class("a", allowedNamespaces=namespaces)])
        assert isinstance(found, Finding)
        assert found.reason is Reason.CLASS_NOT_ALLOWED
        words = (
            "ExportClass a does not serve namespace team (spec.allowedNamespaces); name another class in spec.className"
        )
        assert found.message == words
        assert namespaces[0] not in found.message.split(), "who else is served is nobody's business"


def test_another_default_class_does_not_take_the_place_of_one_that_refuses() -> None:
    classes = [make_class("b", allowedNamespaces=["vision"]), make_class("a")]
    found = find_class(parse_export(make_export()), classes)
    assert isinstance(found, Finding)
    assert found.message.startswith("ExportClass b does not serve")


@pytest.mark.parametrize("value", [[], "team", {"a": 1}, ["Team"], [None], [["team"]], ["team", "*"], ["../team"]])
def test_namespaces_that_are_none_make_the_class_invalid(value: object) -> None:
    with pytest.raises(InvalidSpec, match=r"^spec.allowedNamespaces(\[[01]\])?: "):
        parse_class(make_class(allowedNamespaces=value))
