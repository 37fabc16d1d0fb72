"""The scripts that the how-to pages show run as they stand, in a directory of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3_servers.clients import CREDENTIALS, new_bucket_name
from tests.s3_servers.moto_server import start_moto

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"
NEEDS_A_LIBRARY = {"ray_workers.py": "ray"}
"""What is too large to be installed for one recipe; it is run where it is there."""

NEEDS_S3 = {"cache_a_model.py"}
PROMISED_OUTPUT = {
    "cache_a_model.py": "1000 weights; fetched 1 time, read 2 times from disk\n",
    "configuration.py": (
        "not saved; there is now: {'workers': 5, 'log_level': 'INFO', 'region': 'north'}\n"
    ),
    "joblib_workers.py": "30 results, 10 computed\n",
    "leader_election.py": "two elections, one leader each\n",
    "migrate_from_0309.py": "read: {'points': 3}\nkeys: ['alice', 'bob']\n",
    "migrate_from_diskcache.py": "2 items moved; this was visit 42\n",
    "migrate_from_joblib_memory.py": (
        "[0, 1, 4, 9, 16, 25]; computed anew: [5]\n5 results are kept\n"
    ),
    "migrate_from_shelve.py": "2 items moved; bob_smith has 5 points\n",
    "ray_workers.py": "30 results, 10 computed\n",
    "share_results.py": (
        "first time: something was computed\nsecond time: nothing was computed\n"
        "100 results, the root of 49 is 7.0\n"
    ),
    "work_queue.py": "50 jobs done, none twice, 0 left; 7 squared is 49\n",
}


def output_of(
    script: str, *arguments: str, place: Path, timeout: float = 120, **variables: str
) -> str:
    done = subprocess.run(
        [sys.executable, str(RECIPES / script), *arguments],
        cwd=place,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_recipe_is_run() -> None:
    assert {path.name for path in RECIPES.glob("*.py")} == set(PROMISED_OUTPUT)


@pytest.mark.parametrize("script", sorted(PROMISED_OUTPUT.keys() - NEEDS_S3))
def test_a_recipe_does_what_its_page_says(script: str, tmp_path: Path) -> None:
    if script in NEEDS_A_LIBRARY:
        pytest.importorskip(NEEDS_A_LIBRARY[script])
    assert output_of(script, place=tmp_path) == PROMISED_OUTPUT[script]


@pytest.mark.parametrize("script", sorted(NEEDS_S3))
def test_a_recipe_on_s3_does_what_its_page_says(script: str, tmp_path: Path) -> None:
    with start_moto() as server:
        output = output_of(
            script,
            new_bucket_name(),
            place=tmp_path,
            AWS_ACCESS_KEY_ID=CREDENTIALS[0],
            AWS_SECRET_ACCESS_KEY=CREDENTIALS[1],
            AWS_DEFAULT_REGION="eu-west-1",
            AWS_ENDPOINT_URL=server.endpoint_url,
        )
    assert output == PROMISED_OUTPUT[script]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_results_are_computed_once_on_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    script = RECIPES.parent / "once_on_a_cluster.py"
    printed = output_of(str(script), "--workers", "2", place=tmp_path, timeout=850)
    assert printed.splitlines()[0] == "2000 results asked for, 1000 computed"
    assert "computed more than once: 0" in printed
    assert "the longest way: 178 steps from 871" in printed
    assert "workers that computed: 2" in printed


def test_a_page_shows_the_script_that_it_is_about() -> None:
    pages = (RECIPES.parent.parent / "docs" / "how-to").glob("*.md")
    shown = [
        re.findall(r'^--8<-- "(.+)"$', page.read_text("utf-8"), re.MULTILINE) for page in pages
    ]
    assert all(len(names) == 1 for names in shown)
    scripts = {f"examples/recipes/{name}" for name in PROMISED_OUTPUT}
    assert {name for names in shown for name in names} == {
        *scripts,
        "examples/once_on_a_cluster.py",
    }


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("once_on_a_cluster.py", ["--numbers", "0"]),
        ("once_on_a_cluster.py", ["--workers", "0"]),
        ("index_stdlib.py", ["--workers", "0"]),
        ("index_stdlib.py", ["--runs", "0"]),
    ],
)
def test_an_example_that_is_told_to_do_nothing_says_what_it_needs(
    script: str, arguments: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(RECIPES.parent / script), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "must be at least 1" in done.stderr) == (2, True)


NO_CREDENTIALS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_CONFIG_FILE": os.devnull,
}


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("index_stdlib.py", ["--to", "nope://x"], "unknown scheme"),
        ("index_stdlib.py", ["--dir", __file__], "is not a directory"),
        ("index_stdlib.py", ["--package", "nope"], "has no 'nope'"),
        ("index_stdlib.py", ["--s3", "--bucket", "nope"], "credentials"),
        ("once_on_a_cluster.py", ["--bucket", "nope"], "credentials"),
        ("recipes/cache_a_model.py", ["nope"], "credentials"),
        ("recipes/joblib_workers.py", ["--url", "nope://x"], "unknown scheme"),
    ],
)
def test_a_mistake_ends_an_example_with_a_line_that_says_which(
    script: str, arguments: list[str], told: str, tmp_path: Path
) -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, str(RECIPES.parent / script), *arguments],
        cwd=tmp_path,
        env={**kept, **NO_CREDENTIALS},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert told in done.stderr.splitlines()[-1]


def test_a_recipe_that_needs_a_bucket_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RECIPES / "cache_a_model.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "cache_a_model.py my-bucket" in done.stderr
