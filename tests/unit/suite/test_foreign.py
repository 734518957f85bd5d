"""The environment variables that describe a foreign cluster for tests/e2e."""

from testcluster.foreign import SWITCH, VARIABLES, read_foreign

GIVEN = {variable: variable.lower() for variable in VARIABLES.values()}
ENDPOINT = "MODELEXPORT_STORE_ENDPOINT"
ADDRESS = "MODELEXPORT_STORE_ADDRESS"


def test_tests_bring_up_their_own_cluster_by_default() -> None:
    assert read_foreign({**GIVEN, SWITCH: ""}) is None


def test_missing_variables_of_a_foreign_cluster_are_named() -> None:
    complete, bare = read_foreign(GIVEN), read_foreign({SWITCH: "/kubeconfig"})
    assert complete is not None
    assert bare is not None
    assert complete.missing() == []
    assert bare.missing() == [variable for variable in VARIABLES.values() if variable != SWITCH]


def test_tests_reach_the_store_where_pods_do_by_default() -> None:
    found = read_foreign({**GIVEN, ENDPOINT: "https://store.example:9000", ADDRESS: ""})
    assert found is not None
    assert found.store_address == "store.example:9000"
