"""The search for cycles of imports that ``make lint`` uses."""

from cycles import find_cycles


def test_layers_have_no_cycle() -> None:
    assert find_cycles({"top": ["middle", "bottom"], "middle": ["bottom"], "bottom": []}) == []


def test_package_and_its_module_are_a_cycle() -> None:
    imports = {"stores": ["stores.s3", "names"], "stores.s3": ["stores"], "names": [], "steps": ["stores"]}
    assert find_cycles(imports) == [["stores", "stores.s3", "stores"]]


def test_shortest_cycle_of_a_group_is_shown() -> None:
    assert find_cycles({"a": ["b", "c"], "b": ["c"], "c": ["d"], "d": ["a"]}) == [["a", "c", "d", "a"]]


def test_separate_cycles_are_all_found() -> None:
    assert find_cycles({"a": ["b"], "b": ["a", "x"], "x": ["y"], "y": ["x"]}) == [["a", "b", "a"], ["x", "y", "x"]]
