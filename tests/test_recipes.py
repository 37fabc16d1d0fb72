"""The scripts that the how-to pages show run as they stand, in a directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3_servers.clients import CREDENTIALS, new_bucket_name
from tests.s3_servers.moto_server import start_moto

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"
NEEDS_S3 = {"cache_a_model.py"}
PROMISED_OUTPUT = {
    "cache_a_model.py": "1000 weights; fetched 1 time, read 2 times from disk\n",
    "configuration.py": (
        "not saved; there is now: {'workers': 5, 'log_level': 'INFO', 'region': 'north'}\n"
    ),
    "leader_election.py": "two elections, one leader each\n",
    "migrate_from_0309.py": "read: {'points': 3}\nkeys: ['alice', 'bob']\n",
    "migrate_from_diskcache.py": "2 items moved; this was visit 42\n",
    "migrate_from_shelve.py": "2 items moved; bob_smith has 5 points\n",
    "share_results.py": (
        "first time: something was computed\nsecond time: nothing was computed\n"
        "100 results, the root of 49 is 7.0\n"
    ),
    "work_queue.py": "50 jobs done, none twice, 0 left; 7 squared is 49\n",
}


def output_of(script: str, *arguments: str, place: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, str(RECIPES / script), *arguments],
        cwd=place,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_recipe_is_run() -> None:
    assert {path.name for path in RECIPES.glob("*.py")} == set(PROMISED_OUTPUT)


@pytest.mark.parametrize("script", sorted(PROMISED_OUTPUT.keys() - NEEDS_S3))
def test_a_recipe_does_what_its_page_says(script: str, tmp_path: Path) -> None:
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
