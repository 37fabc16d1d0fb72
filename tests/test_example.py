"""The main job, run as a user runs it, on a small part of the standard library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from persidict import BasicS3Dict, FileDirDict, PersiDict, open_dict
from tests.gcs_server import GCSServer
from tests.s3_dicts import connect
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["moto_aws_server"]

SCRIPT = Path(__file__).parent.parent / "examples" / "index_stdlib.py"
STDLIB = Path(sysconfig.get_path("stdlib"))


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments, "--workers", "2"]


def run_with(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command(*arguments), env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(directory: Path, package: str = "json") -> str:
    return run_with("--dir", str(directory), "--package", package)


def modules_in(directory: Path) -> PersiDict[Any]:
    return FileDirDict(base_dir=str(directory)).get_subdict("modules")


def totals_in(directory: Path) -> PersiDict[Any]:
    return FileDirDict(base_dir=str(directory)).get_subdict("summary")


def sum_over_items(directory: Path) -> dict[str, int]:
    return sum_over(modules_in(directory))


def sum_over(modules: PersiDict[Any]) -> dict[str, int]:
    items = list(modules.values())
    return {
        "modules": len(items),
        "invalid": sum(item["error"] is not None for item in items),
        "lines": sum(item["lines"] for item in items),
        "functions": sum(len(item["functions"]) for item in items),
        "classes": sum(len(item["classes"]) for item in items),
        "imports": sum(len(item["imports"]) for item in items),
    }


def add_to_summary(directory: Path, **differences: int) -> None:
    def add(totals: dict[str, int]) -> dict[str, int]:
        return {name: count + differences.get(name, 0) for name, count in totals.items()}

    totals_in(directory).transform_item("totals", transformer=add)


def test_the_index_can_be_kept_wherever_a_url_says(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/index.db?format=json"
    assert "The summary is exact." in run_with("--to", url, "--package", "json")
    assert "0 to index" in run_with("--to", url, "--package", "json")
    d = open_dict(url)
    assert d.get_subdict("summary")["totals"] == sum_over(d.get_subdict("modules"))


def test_the_index_can_be_kept_in_another_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    server = GCSServer()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "tests")
    url = "gs://index/of/stdlib?format=json"
    assert "The summary is exact." in run_with("--to", url, "--package", "json")
    d = open_dict(url)
    assert d.get_subdict("summary")["totals"] == sum_over(d.get_subdict("modules"))
    server.stop()


def test_memory_is_no_place_for_what_processes_share() -> None:
    done = subprocess.run(command("--to", "mem://x"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "do not share memory" in done.stderr


@pytest.fixture(scope="module")
def json_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first run leaves behind; not to be changed."""
    directory = tmp_path_factory.mktemp("index") / "json"
    run(directory)
    return directory


@pytest.fixture
def own_index(json_index: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(json_index, tmp_path / "index"))


def test_every_source_file_becomes_one_item_under_its_path(json_index: Path) -> None:
    assert set(modules_in(json_index)) == {
        ("json", path.stem) for path in (STDLIB / "json").glob("*.py")
    }


def test_an_item_tells_what_its_module_defines_and_imports(json_index: Path) -> None:
    decoder = modules_in(json_index)["json", "decoder"]
    assert decoder["classes"] == ["JSONDecodeError", "JSONDecoder"]
    assert {"py_scanstring", "decode", "raw_decode"} <= set(decoder["functions"])
    assert {"re", "json"} & set(decoder["imports"])
    assert decoder["lines"] == len((STDLIB / "json" / "decoder.py").read_text().splitlines())


def test_the_shared_summary_equals_the_sum_over_the_items(json_index: Path) -> None:
    assert totals_in(json_index)["totals"] == sum_over_items(json_index)


def test_a_second_run_skips_every_module_and_says_so(own_index: Path) -> None:
    modules = modules_in(own_index)
    before = {key: modules.etag(key) for key in modules}
    assert f"{len(before)} unchanged and skipped, 0 to index" in run(own_index)
    assert {key: modules.etag(key) for key in modules} == before


def test_a_changed_module_moves_the_summary_by_the_difference(own_index: Path) -> None:
    modules = modules_in(own_index)
    tool = modules["json", "tool"]
    modules["json", "tool"] = {**tool, "digest": "of an older source", "lines": tool["lines"] + 100}
    add_to_summary(own_index, lines=100)
    output = run(own_index)
    assert "1 to index" in output
    assert "Rebuilt" not in output
    assert totals_in(own_index)["totals"] == sum_over_items(own_index)


def test_a_vanished_module_is_taken_out_of_the_index_and_the_summary(own_index: Path) -> None:
    modules = modules_in(own_index)
    modules["json", "gone"] = {**modules["json", "tool"], "lines": 7, "functions": []}
    imports, classes = (len(modules["json", "gone"][name]) for name in ("imports", "classes"))
    add_to_summary(own_index, modules=1, lines=7, imports=imports, classes=classes)
    output = run(own_index)
    assert "1 vanished" in output
    assert "Rebuilt" not in output
    assert ("json", "gone") not in modules
    assert totals_in(own_index)["totals"] == sum_over_items(own_index)


def test_modules_of_other_packages_do_not_count_as_vanished(own_index: Path) -> None:
    run(own_index, package="collections")
    modules = modules_in(own_index)
    assert ("json", "decoder") in modules
    assert ("collections", "abc") in modules
    assert totals_in(own_index)["totals"] == sum_over_items(own_index)


def test_a_summary_that_missed_the_last_change_is_noticed_and_rebuilt(own_index: Path) -> None:
    add_to_summary(own_index, modules=-1, lines=-50)
    assert "Rebuilt it" in run(own_index)
    assert totals_in(own_index)["totals"] == sum_over_items(own_index)


def test_a_killed_run_leaves_whole_items_and_the_next_one_completes_them(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    process = subprocess.Popen(
        command("--dir", str(directory), "--package", "encodings"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    modules = modules_in(directory)
    while not modules and process.poll() is None:
        continue
    process.kill()
    # The workers hold the pipe, too: it ends when the last of them has ended.
    process.communicate(timeout=60)
    assert all(facts["digest"] for facts in modules.values())

    run(directory, "encodings")
    assert len(modules) == len(list((STDLIB / "encodings").glob("*.py")))
    assert totals_in(directory)["totals"] == sum_over_items(directory)


# ---------------------------------------------------------------------- on S3


@pytest.fixture(scope="module")
def output_on_own_server() -> str:
    """What two runs print that share a server which the example starts by itself."""
    return run_with("--s3", "--package", "email", "--runs", "2")


def test_on_a_server_of_its_own_every_run_ends_with_an_exact_summary(
    output_on_own_server: str,
) -> None:
    assert output_on_own_server.count("The summary is exact.") == 2


def test_on_a_server_of_its_own_the_second_run_skips_every_module(
    output_on_own_server: str,
) -> None:
    n_modules = len(list((STDLIB / "email").rglob("*.py")))
    assert f"{n_modules} unchanged and skipped, 0 to index" in output_on_own_server


def test_on_a_server_of_its_own_it_says_that_nothing_is_kept(output_on_own_server: str) -> None:
    assert "keeps nothing when it ends" in output_on_own_server


@pytest.fixture(scope="module")
def bucket(moto_aws_server: MotoServer) -> BasicS3Dict[Any]:
    """What a run leaves behind in the bucket that it was told to use; not to be changed."""
    bucket = connect(moto_aws_server.endpoint_url, bucket_name=new_bucket_name(), root_prefix="p")
    run_in(bucket)
    return bucket


def run_in(bucket: BasicS3Dict[Any]) -> str:
    place = ["--bucket", bucket.bucket_name, "--prefix", "p", "--region", "us-east-1"]
    endpoint = ["--endpoint-url", bucket.s3_client.meta.endpoint_url]
    credentials = zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), CREDENTIALS, strict=True)
    env = {**os.environ, **dict(credentials)}
    return run_with("--s3", *place, *endpoint, "--package", "json", env=env)


def test_in_a_given_bucket_items_are_objects_below_the_prefix(bucket: BasicS3Dict[Any]) -> None:
    listed = bucket.s3_client.list_objects_v2(Bucket=bucket.bucket_name)["Contents"]
    assert "p/modules/json/decoder.pkl" in [entry["Key"] for entry in listed]


def test_in_a_given_bucket_the_summary_equals_the_sum_over_the_items(
    bucket: BasicS3Dict[Any],
) -> None:
    assert bucket["summary", "totals"] == sum_over(bucket.get_subdict("modules"))


def test_in_a_given_bucket_a_second_run_skips_every_module(bucket: BasicS3Dict[Any]) -> None:
    assert "5 unchanged and skipped, 0 to index" in run_in(bucket)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--bucket", "b"], "--bucket and --prefix need --s3"),
        (["--s3", "--endpoint-url", "http://127.0.0.1:9"], "--region need --bucket"),
        (["--s3", "--dir", "d"], "not allowed with argument"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: list[str], complaint: str
) -> None:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
