"""What a command reads behind --expect is the file whose digest was compared."""

import hashlib
from pathlib import Path

import pytest

from cosremaster.cli.expected import checked_input
from cosremaster.errors import ImageError


def test_an_image_that_gets_another_file_behind_its_digest_is_an_error(tmp_path: Path) -> None:
    image, other = tmp_path / "in.iso", tmp_path / "new.iso"
    image.write_bytes(b"old")
    other.write_bytes(b"new")
    digest = f"sha256:{hashlib.sha256(b'old').hexdigest()}"
    with checked_input(image, [digest]):
        assert image.read_bytes() == b"old"
    with pytest.raises(ImageError, match="was replaced while"), checked_input(image, [digest]):
        other.replace(image)
