"""Every manifest in examples/ is one that the operator takes."""

from pathlib import Path

import pytest
import yaml

from modelexport.api.spec import parse_class, parse_export
from modelexport.names import CLASS_KIND
from modelexport.planning.plan import plan_export

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_manifest_is_valid(path: Path) -> None:
    for body in yaml.safe_load_all(path.read_text()):
        if body["kind"] == CLASS_KIND:
            parse_class(body)
        else:
            assert plan_export(parse_export(body), "s3://exports")


def test_evaluation_example_overrides_one_target() -> None:
    (body,) = yaml.safe_load_all(next(path for path in EXAMPLES if path.stem == "evaluation").read_text())
    drops = [
        request.evaluation and request.evaluation.max_drop for request in plan_export(parse_export(body), "s3://x")
    ]
    assert drops == [0.01, 0.01, 0.02]
