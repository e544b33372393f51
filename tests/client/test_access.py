"""Address and token: from a profile, the environment, or the dev stack of a folder; always both from one place."""

import os
import pwd
from pathlib import Path

import pytest

from swissbrain import AsyncClient, Client, ClientError
from swissbrain.access import find_access


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, `a/b` below an empty one, without variables and with an empty home."""
    made = tmp_path / "a" / "b"
    made.mkdir(parents=True)
    monkeypatch.chdir(made)
    for name in ("SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return made


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.env"
    path.write_text(text)
    return path


def both(url: str) -> str:
    return f"SWISSBRAIN_API_URL=http://{url}\nSWISSBRAIN_TOKEN=token-{url}\n"


def test_the_environment_comes_before_the_dev_stack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / ".swissbrain", "dev", both("dev"))
    monkeypatch.setenv("SWISSBRAIN_API_URL", "http://env")
    with pytest.raises(ClientError, match=r"^SWISSBRAIN_TOKEN is not set$"):
        find_access()  # the token of the dev stack is not sent to another API
    monkeypatch.setenv("SWISSBRAIN_TOKEN", "secret")
    access = find_access()
    assert (access.url, access.token, access.source) == ("http://env", "secret", "the environment")
    monkeypatch.setenv("SWISSBRAIN_API_URL", " http://env\r")
    monkeypatch.setenv("SWISSBRAIN_TOKEN", "secret\r\n")
    assert (find_access().url, find_access().token) == ("http://env", "secret")
    assert "secret" not in repr(access)


def test_only_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientError, match=r"^SWISSBRAIN_API_URL and SWISSBRAIN_TOKEN are not set, and"):
        find_access()
    monkeypatch.setenv("SWISSBRAIN_TOKEN", "x")
    with pytest.raises(ClientError, match=r"^SWISSBRAIN_API_URL is not set, and"):
        find_access()


@pytest.mark.parametrize("url", ["example.org", "ada:secret@example.org", "ftp://example.org"])
def test_an_address_of_another_kind_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SWISSBRAIN_API_URL", url)
    monkeypatch.setenv("SWISSBRAIN_TOKEN", "token")
    with pytest.raises(ClientError, match=r"^SWISSBRAIN_API_URL must begin with http:// or https://$"):
        find_access()


def test_the_nearest_dev_stack_is_used(folder: Path) -> None:
    far = write(folder.parents[1] / ".swissbrain", "dev", both("far"))
    assert (find_access().url, find_access().source) == ("http://far", str(far))
    write(folder.parent / ".swissbrain", "dev", both("near"))
    access = find_access()
    assert (access.url, access.token, access.is_dev_stack) == ("http://near", "token-near", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_above_the_folder_is_ignored(folder: Path) -> None:
    path = write(folder.parent / ".swissbrain", "dev", both("theirs"))
    os.chown(path, 12345, 12345)
    with pytest.raises(ClientError, match="are not set, and no 'swissbrain dev' was started in this folder or above"):
        find_access()


def test_a_profile_comes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWISSBRAIN_API_URL", "http://env")
    monkeypatch.setenv("SWISSBRAIN_TOKEN", "x")
    write(tmp_path / "config" / "swissbrain", "test", both("home"))
    assert find_access("test").url == "http://home"
    write(folder.parent / ".swissbrain", "test", both("here"))
    assert find_access("test").url == "http://here"
    for name in ("none", "../test", "", "a/b", "."):
        with pytest.raises(ClientError, match="profile"):
            find_access(name)


@pytest.mark.parametrize("content", [b"", b"\xff", b"SWISSBRAIN_API_URL=http://x\n"])
def test_an_incomplete_file_is_named(folder: Path, content: bytes) -> None:
    path = folder / ".swissbrain" / "dev.env"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ClientError, match="SWISSBRAIN_") as caught:
        find_access()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffSWISSBRAIN_API_URL=http://a\r\nSWISSBRAIN_TOKEN=t\r\n",
        "export SWISSBRAIN_API_URL='http://a'\nexport SWISSBRAIN_TOKEN=\"t\"\n",
        "# a comment\n\n  SWISSBRAIN_API_URL=http://a  \nSWISSBRAIN_TOKEN=t \n",
    ],
)
def test_a_file_is_read_as_a_shell_reads_it(folder: Path, text: str) -> None:
    write(folder / ".swissbrain", "dev", text)
    access = find_access()
    assert (access.url, access.token) == ("http://a", "t")


def test_a_removed_folder_has_no_profile(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(ClientError, match="are not set, and no 'swissbrain dev' was started"):
        find_access()
    with pytest.raises(ClientError, match="there is no profile 'test'"):
        find_access("test")


def test_a_user_without_a_home_has_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ClientError, match="there is no profile 'test'"):
        find_access("test")


async def test_both_clients_are_made_from_the_environment(folder: Path) -> None:
    write(folder / ".swissbrain", "dev", both("dev"))
    write(folder / ".swissbrain", "other", both("other"))
    with Client.from_env(timeout_s=1) as client:
        assert client._api.base_url == "http://dev"
    async with AsyncClient.from_env(profile="other") as other:
        assert other._api.base_url == "http://other"
