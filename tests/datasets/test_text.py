import gzip
import os
from pathlib import Path
from typing import Literal

import pytest
import torch

from phasescope.datasets import TextMixture, load_shakespeare, text
from phasescope.datasets.download import DataFile
from phasescope.errors import DataError

CONTENT = "Now is the winter of our discontent\n" * 40


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A text that passes for the official one."""
    import hashlib

    content = CONTENT.encode()
    digest = hashlib.sha256(content).hexdigest()
    file = DataFile(text.SHAKESPEARE.name, len(content), digest, text.SHAKESPEARE.remote)
    monkeypatch.setattr(text, "SHAKESPEARE", file)
    return content


def test_the_text_is_found_plain_or_compressed_and_checked(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "text").mkdir()
    place = tmp_path / "text" / "tinyshakespeare.txt"
    place.write_bytes(small)
    assert load_shakespeare(directory=tmp_path) == CONTENT
    monkeypatch.setenv("PHASESCOPE_DATA", str(tmp_path))
    assert load_shakespeare(download=False) == CONTENT
    place.unlink()
    (tmp_path / "tinyshakespeare.txt.gz").write_bytes(gzip.compress(small))
    assert load_shakespeare(download=False) == CONTENT
    place.write_bytes(small[:-1] + b"!")
    with pytest.raises(DataError, match="must have the uncompressed SHA-256"):
        load_shakespeare(directory=tmp_path)


def test_the_official_address_fills_the_cache(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PHASESCOPE_DATA", raising=False)
    monkeypatch.setenv("PHASESCOPE_CACHE", str(tmp_path / "cache"))
    mirror = tmp_path / "mirror"
    place = mirror / "data" / "tinyshakespeare" / "input.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(small)
    monkeypatch.setattr(text, "SHAKESPEARE_MIRRORS", (mirror.as_uri() + "/",))
    with pytest.raises(DataError, match=r"(?s)no download allowed.*set PHASESCOPE_DATA"):
        load_shakespeare(download=False)
    assert load_shakespeare() == CONTENT
    assert (tmp_path / "cache" / "text" / "tinyshakespeare.txt").read_bytes() == small
    place.write_bytes(b"something else")
    assert load_shakespeare() == CONTENT  # from the cache
    (tmp_path / "cache" / "text" / "tinyshakespeare.txt").unlink()
    with pytest.raises(DataError, match=r"(?s)cannot be had.*the answer is not the file"):
        load_shakespeare()


def test_the_real_text_has_65_characters():
    data = os.environ.get("PHASESCOPE_DATA")
    if not data or not (Path(data) / "text" / "tinyshakespeare.txt").is_file():
        pytest.skip("needs tiny Shakespeare: PHASESCOPE_DATA has no text/tinyshakespeare.txt")
    whole = load_shakespeare(download=False)
    assert whole.startswith("First Citizen:\nBefore we proceed")
    assert len(set(whole)) == 65


def test_sequences_are_the_text_or_repeat_a_snippet_of_its_part():
    generator = torch.Generator().manual_seed(0)
    whole = "".join(chr(97 + int(i)) for i in torch.randint(0, 26, (2_000,), generator=generator))
    found = {}
    parts: list[tuple[Literal["train", "held out"], str]] = [
        ("train", whole[:1_800]),
        ("held out", whole[1_800:]),
    ]
    for part, own in parts:
        mixture = TextMixture(whole, n_ctx=32, shortest=4, longest=12, part=part)
        batch = mixture.sample(400, generator)
        plain = 0
        for tokens, repeats in zip(batch.tokens, batch.repeats, strict=True):
            drawn = mixture.decode(tokens)
            n = 32 - int(repeats.sum())
            if n == 32:
                plain += 1
                assert drawn in own
                continue
            assert 4 <= n <= 12
            assert drawn[:n] in own
            assert drawn == (drawn[:n] * 8)[:32]
            assert repeats.tolist() == [False] * n + [True] * (32 - n)
        found[part] = plain
    assert 160 < found["train"] < 240
    assert 160 < found["held out"] < 240


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="snippets between 1 and half of the length"):
        TextMixture(CONTENT, n_ctx=16, shortest=4, longest=9)
    with pytest.raises(ValueError, match="more than n_ctx=64 characters, but 'held out' has 1"):
        TextMixture(CONTENT[:100], part="held out")
