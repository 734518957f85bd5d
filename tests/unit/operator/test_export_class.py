import pytest

from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.api.spec import ExportClass, parse_class, parse_export
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.reconcile.export_class import find_class
from testplane.objects import make_class, make_export


@pytest.mark.parametrize("order", [1, -1])
def test_newest_default_class_is_last_by_name_on_equal_age(order: int) -> None:
    found = find_class(parse_export(make_export()), [make_class("a"), make_class("b")][::order])
    assert isinstance(found, ExportClass)
    assert found.name == "b"


def test_unannotated_class_serves_only_exports_naming_it() -> None:
    bare = make_class("bare")
    del bare["metadata"]["annotations"]
    assert isinstance(find_class(parse_export(make_export(className="bare")), [bare]), ExportClass)
    assert not isinstance(find_class(parse_export(make_export()), [bare]), ExportClass)


@pytest.mark.parametrize("named", [{}, {"className": "a"}])
def test_class_serves_only_its_namespaces(named: dict[str, str]) -> None:
    export = parse_export(make_export(**named))
    for namespaces in (["team"], ["vision", "team"]):
        assert isinstance(find_class(export, [make_class("a", allowedNamespaces=namespaces)]), ExportClass)
    for namespaces in (["vision"], ["teams", "tea", "team-2"]):
        found = find_class(export, [make_class("a", allowedNamespaces=namespaces)])
        assert isinstance(found, Diagnosis)
        assert found.reason is Reason.CLASS_NOT_ALLOWED
        words = (
            "ExportClass a does not serve namespace team (spec.allowedNamespaces); name another class in spec.className"
        )
        assert found.message == words
        assert namespaces[0] not in found.message.split(), "who else is served is nobody's business"


def test_refusing_default_class_is_not_replaced() -> None:
    classes = [make_class("b", allowedNamespaces=["vision"]), make_class("a")]
    found = find_class(parse_export(make_export()), classes)
    assert isinstance(found, Diagnosis)
    assert found.message.startswith("ExportClass b does not serve")


@pytest.mark.parametrize("value", [[], "team", {"a": 1}, ["Team"], [None], [["team"]], ["team", "*"], ["../team"]])
def test_invalid_namespaces_make_class_invalid(value: object) -> None:
    with pytest.raises(InvalidSpec, match=r"^spec.allowedNamespaces(\[[01]\])?: "):
        parse_class(make_class(allowedNamespaces=value))
