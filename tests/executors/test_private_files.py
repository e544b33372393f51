"""Files of the runner without a name, on file systems that have such files and on others."""

import os
import tempfile

import pytest

from infra.pod_runner.private_files import chunks_of, path_of, private_file


@pytest.mark.parametrize("folder", ["/dev/shm", "/proc"], ids=["supported", "unsupported"])
def test_a_private_file_can_be_opened_again_by_its_owner_and_has_no_name(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", folder)
    fd = private_file()
    try:
        path_of(fd).write_bytes(b"one")
        assert b"".join(chunks_of(fd, 3)) == b"one"
        assert not os.get_inheritable(fd)
        assert os.fstat(fd).st_nlink == 0
    finally:
        os.close(fd)


def test_a_folder_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/missing")
    with pytest.raises(FileNotFoundError):
        private_file()
