"""The steps of docs/install.md that need no cluster, followed word by word."""

import re
from typing import Any

import yaml

from modelexport.api.spec import parse_class, parse_export
from testcluster.chart import CHART
from testcluster.layout import EXAMPLE, REPOSITORY, UPLOADS

STEPS = (REPOSITORY / "docs/install.md").read_text().split("## On a cluster of your own\n")[1].split("\n## ")[0]
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def values() -> Any:
    [text] = re.findall(r"```yaml\n(.*?)```", STEPS, re.DOTALL)
    return yaml.safe_load(text)


def export_class() -> Any:
    body = {"apiVersion": "modelexport.dev/v1alpha1", "kind": "ExportClass", "metadata": {"name": "default"}}
    return parse_class(body | {"spec": values()["exportClass"]["spec"]})


def test_example_inputs_are_uploaded_where_expected() -> None:
    uploads = dict(re.findall(r"mc cp (\S+) store/(\S+)", STEPS))
    assert uploads == {path: f"{bucket}/{key}" for path, (bucket, key) in UPLOADS.items()}
    export = parse_export(yaml.safe_load((REPOSITORY / EXAMPLE).read_text()))
    assert export.calibration is not None
    read = {export.model.checkpoint.uri, export.calibration.dataset.uri}
    assert {f"s3://{target}" for target in uploads.values()} == read
    assert all((REPOSITORY / path).is_file() for path in uploads)


def test_every_bucket_is_created() -> None:
    [buckets] = re.findall(r"mc mb --ignore-existing (.*)", STEPS)
    assert set(buckets.split()) == {f"store/{bucket}" for bucket, _ in UPLOADS.values()} | {
        f"store/{export_class().storage.bucket}"
    }


def test_installed_images_were_pushed_with_version_tag() -> None:
    built = re.findall(r"docker build -f (\S+) -t (\S+) \.", STEPS)
    assert all((REPOSITORY / dockerfile).is_file() for dockerfile, _ in built)
    image = values()["image"]
    installed = [f"{image['repository']}:{image['tag']}", export_class().image]
    assert [name for _, name in built] == re.findall(r"docker push (REGISTRY\S+)", STEPS) == installed
    assert all(name.endswith(f":{VERSION}") for name in installed)
