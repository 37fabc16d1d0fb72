"""The command does what its help says, with the exit statuses that people expect."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from persidict import FileDirDict
from persidict.cli.commands import persidict as command
from persidict.stores.files.draft import TEMP_PREFIX
from tests.s3_servers.clients import CREDENTIALS, s3_client
from tests.s3_servers.moto_server import MotoServer, start_moto

IDENTITY = {
    "AWS_ACCESS_KEY_ID": CREDENTIALS[0],
    "AWS_SECRET_ACCESS_KEY": CREDENTIALS[1],
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def place(tmp_path: Path) -> str:
    d = FileDirDict[Any](base_dir=str(tmp_path / "d"))
    d["2026", "may", "loss"] = 0.31
    d["2026", "june", "loss"] = 0.28
    d["names"] = ["a", "b"]
    return str(tmp_path / "d")


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(command, arguments, input=stdin)


def output(*arguments: str, stdin: bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ls_lists_keys_with_slashes_between_their_strings(place: str) -> None:
    assert sorted(output("ls", place).split()) == ["2026/june/loss", "2026/may/loss", "names"]


def test_ls_lists_a_range(place: str) -> None:
    shown = output("ls", place, "--prefix", "2026", "--start", "2026/june/z")
    assert shown == "2026/may/loss\n"


def test_ls_lists_what_matches_a_pattern(place: str) -> None:
    assert output("ls", place, "--glob", "2026/m*/loss") == "2026/may/loss\n"


def test_ls_as_json_is_an_object_a_line(place: str) -> None:
    shown = [json.loads(line) for line in output("ls", "--json", place).splitlines()]
    assert {tuple(one) for one in shown} == {("key", "etag", "size", "last_modified")}
    assert ["names"] in [one["key"] for one in shown]


def test_ls_long_shows_sizes_and_times(place: str) -> None:
    for line in output("ls", "-l", place).splitlines():
        assert "bytes" in line
        assert ":" in line


def test_ls_stops_at_a_limit(place: str) -> None:
    assert len(output("ls", place, "--limit", "2").splitlines()) == 2


def test_get_writes_a_value_as_json(place: str) -> None:
    assert json.loads(output("get", place, "names")) == ["a", "b"]


def test_get_raw_writes_the_stored_bytes(place: str) -> None:
    raw = FileDirDict[Any](base_dir=place).raw["names"]
    assert run("get", "--raw", place, "names").stdout_bytes == raw


def test_what_is_put_raw_is_what_was_got_raw(place: str) -> None:
    raw = run("get", "--raw", place, "names").stdout_bytes
    output("put", "--raw", place, "copy", stdin=raw)
    assert FileDirDict[Any](base_dir=place)["copy"] == ["a", "b"]


def test_put_stores_json(place: str) -> None:
    output("put", place, "new/item", '{"a": [1, null]}')
    assert FileDirDict[Any](base_dir=place)["new", "item"] == {"a": [1, None]}


def test_put_stores_a_text_from_standard_input(place: str) -> None:
    output("put", "--text", place, "note", "-", stdin=b"hello\n")
    assert FileDirDict[Any](base_dir=place)["note"] == "hello\n"


def test_put_if_absent_fails_where_there_is_an_item_and_stores_nothing(place: str) -> None:
    result = run("put", "--if-absent", place, "names", "1")
    assert result.exit_code == 1
    assert "nothing was stored" in result.stderr
    assert FileDirDict[Any](base_dir=place)["names"] == ["a", "b"]


def test_put_if_etag_replaces_that_version_once(place: str) -> None:
    etag = FileDirDict[Any](base_dir=place).etag("names")
    assert run("put", "--if-etag", etag, place, "names", "1").exit_code == 0
    assert run("put", "--if-etag", etag, place, "names", "2").exit_code == 1
    assert FileDirDict[Any](base_dir=place)["names"] == 1


def test_rm_deletes_keys_and_prefixes(place: str) -> None:
    output("rm", place, "names")
    output("rm", place, "--prefix", "2026/may")
    assert output("ls", place) == "2026/june/loss\n"


def test_rm_of_what_does_not_exist_fails_unless_forced(place: str) -> None:
    assert run("rm", place, "nobody").exit_code == 1
    assert run("rm", "-f", place, "nobody").exit_code == 0


def test_cp_copies_chosen_items(place: str, tmp_path: Path) -> None:
    result = run("cp", place, str(tmp_path / "other"), "names")
    assert "1 copied" in result.stderr
    assert list(FileDirDict[Any](base_dir=str(tmp_path / "other"))) == [("names",)]


def test_sync_deletes_only_when_told_to(place: str, tmp_path: Path) -> None:
    other = FileDirDict[Any](base_dir=str(tmp_path / "other"))
    other["old"] = 1
    run("sync", place, str(tmp_path / "other"))
    assert len(other) == 4
    run("sync", "--delete", place, str(tmp_path / "other"))
    assert other == FileDirDict[Any](base_dir=place)


def test_a_dry_run_of_sync_shows_what_differs_and_changes_nothing(
    place: str, tmp_path: Path
) -> None:
    other = FileDirDict[Any](base_dir=str(tmp_path / "other"))
    other.update({"old": 1, "names": ["c"]})
    shown = output("sync", "--delete", "--dry-run", place, str(tmp_path / "other"))
    assert sorted(shown.splitlines()) == [
        "changed  names",
        "deleted  old",
        "new      2026/june/loss",
        "new      2026/may/loss",
    ]
    assert dict(other) == {("old",): 1, ("names",): ["c"]}


def test_info_tells_about_an_item(place: str) -> None:
    shown = output("info", place, "names")
    assert FileDirDict[Any](base_dir=place).etag("names") in shown
    assert "bytes" in shown


def test_info_tells_about_a_place(place: str) -> None:
    assert "FileDirDict" in output("info", place)


def test_du_adds_up(place: str) -> None:
    lines = [line.split() for line in output("du", "--bytes", place).splitlines()]
    sizes = {name: (int(size), int(count)) for size, count, name in lines}
    assert sizes["2026"][1] == 2
    assert sizes["total"][0] == sizes["2026"][0] + sizes["names"][0]


def test_verify_is_content_with_what_is_whole(place: str) -> None:
    assert run("verify", place).exit_code == 0


def test_verify_names_what_is_damaged(place: str) -> None:
    FileDirDict[Any](base_dir=place).raw["names"] = b"no pickle"
    result = run("verify", place)
    assert result.exit_code == 1
    assert result.stdout.startswith("names: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "{place}", "no such key"),
        ("get", "nosuch://place", "a"),
        ("put", "{place}", "a", "{no json"),
        ("rm", "{place}"),
        ("ls", "{place}", "--limit", "0"),
        ("ls", "{place}", "--glob", "["),
    ],
)
def test_what_makes_no_sense_is_told_with_status_2(place: str, arguments: tuple[str, ...]) -> None:
    result = run(*(argument.replace("{place}", place) for argument in arguments))
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_a_missing_item_is_told_with_status_1(place: str) -> None:
    result = run("get", place, "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nobody" in result.stderr


def test_a_damaged_item_is_told_without_a_traceback(place: str) -> None:
    FileDirDict[Any](base_dir=place).raw["names"] = b"no pickle"
    result = run("get", place, "names")
    assert result.exit_code == 1
    assert "cannot be decoded" in result.stderr
    assert "Traceback" not in result.stderr


def test_python_m_persidict_is_the_command(place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "persidict", "get", place, "names"], capture_output=True, check=True
    )
    assert json.loads(done.stdout) == ["a", "b"]


def test_a_reader_that_has_seen_enough_is_no_error(place: str) -> None:
    FileDirDict[Any](base_dir=place, fsync=False).update({f"k{n}": n for n in range(5000)})
    done = subprocess.run(
        f"{sys.executable} -m persidict ls {place} | head -1",
        shell=True,
        capture_output=True,
        env=os.environ,
    )
    assert done.stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_command_that_is_interrupted_ends_without_noise(
    number: signal.Signals, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "persidict", "ls", f"s3+http://{address}/bucket"],
            env={**os.environ, **IDENTITY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()  # now it waits for an answer
        with connection:
            process.send_signal(number)
            output, noise = process.communicate(timeout=60)
    assert (process.returncode, output, noise) == (status, b"", b"")


def test_a_shell_can_complete_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "persidict"],
        env={**os.environ, "_PERSIDICT_COMPLETE": "bash_source"},
        capture_output=True,
        text=True,
    )
    assert "complete" in done.stdout


# ---------------------------------------------------------------------- what is mistyped


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["get", "a"],
        ["rm", "a"],
        ["info"],
        ["du"],
        ["verify"],
        ["cp", "there"],
        ["sync", "there", "--delete"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("scheme", ["", "sqlite://"])
def test_a_place_that_is_not_there_is_no_empty_one(
    scheme: str, arguments: list[str], tmp_path: Path
) -> None:
    there, typo = tmp_path / "there", tmp_path / "typo"
    FileDirDict(base_dir=there)["kept"] = 1
    name, *rest = arguments
    rest = [str(there) if word == "there" else word for word in rest]
    found = run(name, f"{scheme}{typo}", *rest)
    assert (found.exit_code, found.stderr) == (1, f"persidict: there is nothing at {str(typo)!r}\n")
    assert not typo.exists()
    assert list(FileDirDict(base_dir=there)) == [("kept",)]


def test_a_missing_item_is_named_as_it_was_typed(tmp_path: Path) -> None:
    FileDirDict(base_dir=tmp_path)["kept"] = 1
    found = run("get", str(tmp_path), "2026/may")
    assert (found.exit_code, found.stderr) == (1, "persidict: there is no item 2026/may\n")


def test_a_missing_item_of_a_copy_is_named_once(place: str, tmp_path: Path) -> None:
    found = run("cp", place, str(tmp_path / "other"), "nope")
    assert found.exit_code == 1
    assert found.stderr.splitlines()[1:] == ["persidict: nope: there is no item nope"]


def test_a_version_of_what_is_not_there_is_told_to_be_absent(place: str) -> None:
    found = run("put", place, "nope", "1", "--if-etag", "x")
    said = "persidict: nothing was stored: there is no item nope\n"
    assert (found.exit_code, found.stderr) == (1, said)


@pytest.mark.parametrize(
    ("command_line", "status", "said"),
    [
        ("put {} a <&-", 2, "there is no standard input: give VALUE"),
        ("get {} names --raw >&-", 1, "standard output is closed"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell of POSIX")
def test_a_closed_stream_is_told_of(command_line: str, status: int, said: str, place: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m persidict {command_line.format(place)}",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr.splitlines()[-1].partition(": ")[2]) == (status, said)


def test_a_text_that_is_no_utf8_is_told_with_a_remedy(place: str) -> None:
    found = run("put", place, "a", "--text", stdin=b"\xff")
    assert found.exit_code == 2
    assert "no text in UTF-8" in found.stderr
    assert "--raw stores it as bytes" in found.stderr


def test_a_text_that_no_stream_takes_is_told_with_a_remedy(place: str) -> None:
    FileDirDict[Any](base_dir=place)["half"] = "\ud800"
    found = run("get", place, "half")
    assert found.exit_code == 1
    assert "--raw writes the stored bytes" in found.stderr


# ---------------------------------------------------------------------- a rehearsal


def test_a_dry_run_compares_what_has_no_truth_value(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    import numpy as np

    one, other = (FileDirDict[Any](base_dir=tmp_path / name) for name in ("one", "other"))
    one.update({"same": np.arange(3), "changed": np.arange(3)})
    other.update({"same": np.arange(3), "changed": np.zeros(3)})
    assert output("sync", "--dry-run", one.base_dir, other.base_dir) == "changed  changed\n"


def test_a_dry_run_takes_damaged_items_as_the_sync_does(place: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    run("sync", place, other)
    for where, data in ((place, b"bad"), (other, b"worse")):
        FileDirDict[Any](base_dir=where, raw=True)["names"] = data
    assert output("sync", "--dry-run", place, other) == "changed  names\n"
    run("sync", place, other)
    assert output("sync", "--dry-run", place, other) == ""


def test_a_dry_run_refuses_to_empty_the_target_as_the_sync_does(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("sync", "--delete", str(tmp_path / "empty"), place)
    rehearsed, done = run(*arguments, "--dry-run"), run(*arguments)
    assert (rehearsed.exit_code, rehearsed.stderr) == (done.exit_code, done.stderr)
    assert done.exit_code == 1


@pytest.mark.parametrize("scheme", ["", "sqlite://"])
def test_a_dry_run_makes_no_target_and_takes_its_place_for_empty(
    scheme: str, place: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    shown = output("sync", "--delete", place, f"{scheme}{target}", "--dry-run")
    assert shown.count("new ") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_dry_run_lists_each_side_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    listing = FileDirDict._listing

    def counted(d: FileDirDict[Any]) -> Any:
        listed.append(d.base_dir)
        return listing(d)

    monkeypatch.setattr(FileDirDict, "_listing", counted)
    (tmp_path / "target").mkdir()
    run("sync", "--dry-run", place, str(tmp_path / "target"))
    assert sorted(listed) == [place, str(tmp_path / "target")]


@pytest.mark.parametrize(
    "arguments", [["ls"], ["verify"], ["du"], ["sync", "--dry-run", "{target}"], ["get", "names"]]
)
def test_what_only_reads_clears_nothing_away(
    arguments: list[str], place: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    left_over = [Path(place) / f"{TEMP_PREFIX}old", target / f"{TEMP_PREFIX}old"]
    target.mkdir()
    for path in left_over:
        path.write_bytes(b"of a dead process")
        os.utime(path, (0, 0))
    name, *rest = arguments
    output(name, place, *(word.format(target=target) for word in rest))
    assert all(path.exists() for path in left_over)


# ---------------------------------------------------------------------- many failures


def test_of_many_failures_the_first_ones_are_told_and_how_many_more(
    place: str, tmp_path: Path
) -> None:
    found = run("cp", place, str(tmp_path / "other"), *(f"nope{n}" for n in range(25)))
    told = [line for line in found.stderr.splitlines() if "nope" in line]
    assert (len(told), found.exit_code) == (10, 1)
    assert found.stderr.endswith("persidict: ... and 15 more\n")


# ---------------------------------------------------------------------- a terminal


def in_a_terminal(*arguments: str) -> tuple[bytes, subprocess.CompletedProcess[str]]:
    """Run the command, and return what the terminal was sent."""
    terminal, end = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as reader, os.fdopen(end, "wb") as writer:
        done = subprocess.run(
            [sys.executable, "-m", "persidict", *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        writer.write(b"|")  # the end of what was shown
        writer.flush()
        shown = b""
        while not shown.endswith(b"|"):
            shown += reader.read(100)
    return shown, done


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize(("key", "status"), [("names", 1), ("text", 0)])
def test_stored_bytes_that_are_no_text_are_not_sent_to_a_terminal(
    key: str, status: int, place: str
) -> None:
    FileDirDict[Any](base_dir=place).raw["text"] = "größer\n".encode()
    shown, done = in_a_terminal("get", place, key, "--raw")
    assert done.returncode == status
    assert shown == ("größer\r\n|".encode() if status == 0 else b"|")
    assert ("no text for a terminal" in done.stderr) is (status == 1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_a_text_gives_no_orders_to_a_terminal(place: str) -> None:
    FileDirDict[Any](base_dir=place)["title"] = "\x1b]0;mine\x07"
    assert in_a_terminal("get", place, "title")[0] == b"'\\x1b]0;mine\\x07'\r\n|"


def test_a_text_reaches_a_file_as_it_was_stored(place: str) -> None:
    FileDirDict[Any](base_dir=place)["colored"] = "\x1b[31mred\x1b[0m"
    assert output("get", place, "colored") == "\x1b[31mred\x1b[0m\n"


# ---------------------------------------------------------------------- buckets


COMMANDS = {
    "ls": ["ls", "{url}"],
    "get": ["get", "{url}", "a"],
    "put": ["put", "{url}", "a", "1"],
    "rm": ["rm", "{url}", "a"],
    "du": ["du", "{url}"],
    "verify": ["verify", "{url}"],
    "info": ["info", "{url}"],
    "cp": ["cp", "{place}", "{url}"],
    "sync": ["sync", "{place}", "{url}"],
    "dry-run": ["sync", "--dry-run", "{place}", "{url}"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with start_moto() as server:
        yield server


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_creates_a_bucket_whose_name_is_misspelt(
    name: str, place: str, server: MotoServer
) -> None:
    url = f"s3+{server.endpoint_url}/misspelt"
    found = run(*(word.format(url=url, place=place) for word in COMMANDS[name]))
    assert found.exit_code == 1
    assert "?create_bucket=true" in found.stderr
    buckets = s3_client(server.endpoint_url).list_buckets()["Buckets"]
    assert "misspelt" not in [bucket["Name"] for bucket in buckets]


@pytest.mark.usefixtures("identity")
def test_a_bucket_is_created_where_the_url_says_so(place: str, server: MotoServer) -> None:
    url = f"s3+{server.endpoint_url}/wanted-{os.getpid()}"
    assert run("cp", place, f"{url}?create_bucket=true").exit_code == 0
    assert len(output("ls", url).splitlines()) == 3


@pytest.mark.usefixtures("identity")
def test_a_dry_run_sends_nothing_that_changes_a_bucket(place: str, server: MotoServer) -> None:
    name = f"target-{os.getpid()}"
    s3_client(server.endpoint_url).create_bucket(Bucket=name)
    url = f"s3+{server.endpoint_url}/{name}"
    run("put", url, "old", "1")
    server.reset_log()
    shown = output("sync", "--delete", "--dry-run", place, url)
    assert "deleted  old" in shown
    assert {request.operation for request in server.requests()} <= {"ListObjectsV2", "GetObject"}
