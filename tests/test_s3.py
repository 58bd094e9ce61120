"""Datasets in a bucket: a real S3 server on this machine, asked through s3fs as a lab's would be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trees

from cotray.cli import main
from cotray.errors import AccessError, DatasetNotFoundError, RunNotWritableError, StorageError
from cotray.storage import Folder, require_writable

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

Captured = pytest.CaptureFixture[str]
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Server:
    url: str
    client: Any

    def plant(self, bucket: str, tree: trees.Tree) -> None:
        self.client.create_bucket(Bucket=bucket)
        for name, data in tree.items():
            self.client.put_object(Bucket=bucket, Key=name, Body=data)

    def deny(self, bucket: str, key: str) -> None:
        """Let nobody read objects, which may still be listed."""
        rule = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject"}
        policy = {"Version": "2012-10-17", "Statement": [rule | {"Resource": f"arn:aws:s3:::{bucket}/{key}"}]}
        self.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def ask_who(self, after: str) -> None:
        """From so many requests on, the server asks who they come from; `inf`: never."""
        place, kind = f"{self.url}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(place, after.encode(), kind)).close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """An S3 server with buckets of an administrator's."""
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    server = Server(f"http://{host}:{port}", client)
    server.plant("lab", {f"data/{name}": data for name, data in (trees.cnmc() | trees.idb2(12)).items()})
    client.put_object(
        Bucket="lab", Key="data/ALL_IDB2/masks/", Body=b""
    )  # what consoles make of a new folder
    server.plant("empty", {})
    yield server
    running.stop()


@pytest.fixture(autouse=True)
def asking(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """This process asks the server; no filesystem of another test, and no credentials of this machine."""
    for name, value in zip(NAMES, ("admin", "secret", "us-east-1", server.url), strict=True):
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    server.ask_who("inf")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def stranger(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user of the server with valid keys and no permission for anything."""
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url=server.url, **keys)
    iam.create_user(UserName="stranger")
    key = iam.create_access_key(UserName="stranger")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    server.ask_who("0")
    yield
    server.ask_who("inf")
    iam.delete_access_key(UserName="stranger", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="stranger")


def check(capsys: Captured, *args: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["datasets", "check", *args])
    out, err = capsys.readouterr()
    assert (left.value.code or 0) == code, out + err
    return out, err


# ---- what is there ---------------------------------------------------------------------------------


def test_a_bucket_is_a_folder(server: Server) -> None:
    folder = Folder("s3://lab/data/ALL_IDB2")
    assert folder.exists() and folder.exists("img/Im001_1.tif") and not folder.exists("img/Im999_1.tif")
    assert len(folder.files()) == 12 and "masks/" not in folder.files(), "no object that stands for a folder"
    assert folder.sizes()["img/Im001_1.tif"][0] == len(folder.read_bytes("img/Im001_1.tif"))
    assert list(folder.heads(["img/Im001_1.tif", "nothing"], 4)) == [b"II*\0", b""]
    with folder.open("img/Im001_1.tif") as file:
        file.seek(-3, 2)
        assert len(file.read()) == 3
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("nothing")
    assert sorted(Folder("s3://lab").files()) == sorted(
        f"data/{name}" for name in trees.cnmc() | trees.idb2(12)
    )


def test_tables_are_read_from_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "here.csv").write_text("\ufeffpath,subject")
    for folder in (Folder("s3://lab/data"), Folder(str(tmp_path))):
        assert folder.read_text(f"s3://lab/data/{trees.LABELS}").startswith("Patient_ID")
        assert folder.read_text(str(tmp_path / "here.csv")) == "path,subject"
    assert Folder("s3://lab/data").read_text(trees.LABELS).startswith("Patient_ID")


def test_fsspecs_own_variables_name_a_server_and_open_public_buckets(server: Server) -> None:
    """All other tests name the server by AWS_ENDPOINT_URL and have credentials."""
    given = {"FSSPEC_S3_ENDPOINT_URL": server.url, "FSSPEC_S3_ANON": "true"}
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | given
    code = "from cotray.storage import Folder; print(len(Folder('s3://lab/data/ALL_IDB2').files()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "12\n"), done.stderr


def test_a_bucket_is_checked_as_a_folder_is(capsys: Captured, tmp_path: Path) -> None:
    local = trees.plant(trees.cnmc(), tmp_path / "data")
    there = json.loads(check(capsys, "s3://lab/data", "--dataset", "c-nmc", "--json")[0])
    here = json.loads(check(capsys, str(local), "--dataset", "c-nmc", "--json")[0])
    assert there.pop("root") == "s3://lab/data" and here.pop("root") == str(local)
    assert len(there["rejected"]) == 12, "those of ALL-IDB2"
    others = {"rejected": [], "images": 28 - 12, "sizes": {"24x24": 28 - 12}}
    assert {**there, **others} == {**here, **others} and here["images"] == 16
    text, _ = check(capsys, "s3://lab/data/ALL_IDB2")
    assert "read as ALL-IDB2 (guessed" in text and re.search(r"blast\s+6\s+130", text)


@pytest.mark.slow
def test_a_run_ingests_from_a_bucket_into_a_bucket(server: Server) -> None:
    """Ray's workers read the images themselves, with the environment of whoever started Ray.

    One image may be listed but not read: it is quarantined, and its neighbours are used.
    """
    server.plant("cells", trees.idb2(12))
    server.deny("cells", "ALL_IDB2/img/Im004_1.tif")
    sets = ("split.block=1", "split.near_duplicate_bits=0", "tracking.enabled=false")
    what = ("--dataset", "all-idb2", "--root", "s3://cells/ALL_IDB2", "--preset", "tiny")
    options = [word for setting in sets for word in ("--set", setting)]
    command = [sys.executable, "-m", "cotray", "ingest", "--run", "s3://cells/runs/one", *what, *options]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written = Folder("s3://cells/runs/one/ingest")
    rows = written.read_parquet("manifest.parquet").to_pylist()
    assert len(rows) == 11 and {(row["status"], row["width"]) for row in rows} == {("used", 24)}
    assert all(row["label"] == int(row["id"][-5]) for row in rows)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    (lost,) = written.read_parquet("quarantine.parquet").to_pylist()
    assert lost["id"] == "img/Im004_1.tif" and "Forbidden" in lost["reason"]


@pytest.mark.usefixtures("stranger")
def test_a_run_may_not_ingest_from_a_bucket_without_permission(capsys: Captured) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["ingest", "--run", "run", "--dataset", "all-idb2", "--root", "s3://lab"])
    out, err = capsys.readouterr()
    assert left.value.code == 2 and err.startswith("cotray: No permission here") and err.count("\n") == 1, out


# ---- what is not, or not for everybody ---------------------------------------------------------------


@pytest.mark.parametrize("place", ["s3://nobody/data", "s3://nobody", "s3://lab/nothing", "s3://empty/data"])
def test_a_bucket_or_folder_that_does_not_exist(place: str, capsys: Captured) -> None:
    with pytest.raises(DatasetNotFoundError, match="no such folder") as caught:
        Folder(place).files()
    assert caught.value.where == place and caught.value.cure
    _, err = check(capsys, place, code=2)
    assert "There is no such folder." in err and place in err and err.count("\n") == 1


@pytest.mark.parametrize("place", ["s3://lab/data", "s3://lab"])
@pytest.mark.usefixtures("stranger")
def test_a_bucket_without_permission(place: str, capsys: Captured) -> None:
    for ask in (Folder(place).files, Folder(place).exists, Folder(place).sizes):
        with pytest.raises(AccessError, match="No permission here") as caught:
            ask()
        assert caught.value.where == place and "AWS_ACCESS_KEY_ID" in str(caught.value.cure)
    _, err = check(capsys, place, code=2)
    assert err.startswith("cotray: No permission here") and err.count("\n") == 1 and "policy" in err


@pytest.mark.usefixtures("stranger")
def test_a_run_folder_without_permission() -> None:
    with pytest.raises((RunNotWritableError, AccessError)) as caught:
        require_writable(Folder("s3://lab/runs/mine"))
    assert "s3://lab/runs/mine" in str(caught.value.where) or "lab/runs/mine" in str(caught.value.where)


@pytest.mark.usefixtures("stranger")
def test_a_key_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    with pytest.raises(AccessError, match="Key Id you provided does not exist"):
        Folder("s3://lab/data").files()


@pytest.mark.parametrize("place", ["s3://lab/data", "s3://lab"])
def test_missing_credentials(place: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    _, err = check(capsys, place, code=2)
    assert "Credentials are missing" in err and "AWS_PROFILE" in err and "FSSPEC_S3_ANON" in err
    with pytest.raises(AccessError):
        Folder(place).read_bytes("data/a")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        Folder("s3://lab/data").files()
    assert "AWS_ENDPOINT_URL" in str(caught.value.cure) and not isinstance(caught.value, AccessError)


def test_images_that_may_be_listed_but_not_read_are_no_sizes(server: Server, capsys: Captured) -> None:
    server.plant("half", trees.idb2())
    server.deny("half", "*")
    text, _ = check(capsys, "s3://half")
    assert "headers that cannot be read (ingest quarantines such files): 4" in text
    with pytest.raises(PermissionError):  # an OSError of one file, which ingest quarantines
        Folder("s3://half").read_bytes("ALL_IDB2/img/Im001_1.tif")


def test_without_s3fs_it_is_said_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['s3fs'] = None\nfrom cotray.cli import main\n"
        "main(['datasets', 'check', 's3://lab/data'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'cotray[s3]'" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "s3://lab/data" in done.stderr
