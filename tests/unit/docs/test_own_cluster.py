"""The steps of the README for a cluster of one's own, followed word by word as far as no cluster is needed."""

import re
from typing import Any

import yaml

from cluster.chart import CHART
from cluster.demo import EXAMPLE, UPLOADS
from cluster.layout import REPOSITORY
from modelexport.spec import parse_class, parse_export

STEPS = (REPOSITORY / "README.md").read_text().split("On a cluster of your own:\n")[1].split("\n## ")[0]
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def values() -> Any:
    [text] = re.findall(r"```yaml\n(.*?)```", STEPS, re.DOTALL)
    return yaml.safe_load(text)


def export_class() -> Any:
    body = {"apiVersion": "modelexport.dev/v1alpha1", "kind": "ExportClass", "metadata": {"name": "default"}}
    return parse_class(body | {"spec": values()["exportClass"]["spec"]})


def test_everything_that_the_example_reads_is_uploaded_from_where_it_is() -> None:
    uploads = dict(re.findall(r"mc cp (\S+) store/(\S+)", STEPS))
    assert uploads == {path: f"{bucket}/{key}" for path, (bucket, key) in UPLOADS.items()}
    export = parse_export(yaml.safe_load((REPOSITORY / EXAMPLE).read_text()))
    assert export.calibration is not None
    read = {export.model.checkpoint.uri, export.calibration.dataset.uri}
    assert {f"s3://{target}" for target in uploads.values()} == read
    assert all((REPOSITORY / path).is_file() for path in uploads)


def test_every_bucket_is_made() -> None:
    [buckets] = re.findall(r"mc mb --ignore-existing (.*)", STEPS)
    assert set(buckets.split()) == {f"store/{bucket}" for bucket, _ in UPLOADS.values()} | {
        f"store/{export_class().storage.bucket}"
    }


def test_what_is_installed_was_built_and_pushed_with_the_tag_of_the_version() -> None:
    built = re.findall(r"docker build -f (\S+) -t (\S+) \.", STEPS)
    assert all((REPOSITORY / dockerfile).is_file() for dockerfile, _ in built)
    image = values()["image"]
    installed = [f"{image['repository']}:{image['tag']}", export_class().image]
    assert [name for _, name in built] == re.findall(r"docker push (REGISTRY\S+)", STEPS) == installed
    assert all(name.endswith(f":{VERSION}") for name in installed)
