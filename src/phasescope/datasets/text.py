"""Real text as character tokens: tiny Shakespeare, plain and with repeated snippets.

Letters: n characters, b sequences, t positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from phasescope.datasets.download import (
    DataFile,
    cache_directory,
    data_roots,
    fetch,
    find_file,
    read_checked,
)
from phasescope.datasets.token_mixture import TokenBatch
from phasescope.errors import DataError

SHAKESPEARE_MIRRORS = ("https://raw.githubusercontent.com/karpathy/char-rnn/master/",)
SHAKESPEARE = DataFile(
    "tinyshakespeare.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    remote="data/tinyshakespeare/input.txt",
)


def load_shakespeare(*, directory: Path | str | None = None, download: bool = True) -> str:
    """Tiny Shakespeare: 1,115,394 characters of plays, 65 different ones.

    ``tinyshakespeare.txt`` is looked for, plain or compressed (`.gz`), in `directory` and nowhere
    else if that is given; else in the directory that `PHASESCOPE_DATA` names, then in phasescope's
    cache, and at last at its official address, which fills the cache. In each of them it may lie
    directly or in `text/`. Whatever the source, the content must have the official SHA-256.

    Args:
        directory: Directory that must hold the file.
        download: Whether it may be downloaded.

    Returns:
        The text.

    Raises:
        DataError: The file cannot be had, or is not the official one.

    Example:
        >>> load_shakespeare(directory="elsewhere")
        Traceback (most recent call last):
        ...
        phasescope.errors.DataError: elsewhere must hold tinyshakespeare.txt (plain or .gz) ...

    References:
        Karpathy (2015), "The unreasonable effectiveness of recurrent neural networks" (char-rnn).
    """
    return read_checked(_find(directory, download), SHAKESPEARE).decode("ascii")


def _find(directory: Path | str | None, download: bool) -> Path:
    name = SHAKESPEARE.name
    if directory is not None:
        if found := _within(Path(directory)):
            return found
        raise DataError(
            f"{directory} must hold {name} (plain or .gz) directly or in text/, but it does not. "
            "Put it there, or leave out the directory to use the cache or a download."
        )
    roots = data_roots()
    for root in roots:
        if found := _within(root):
            return found
    by_hand = (
        f"Looked in {' and '.join(map(str, roots))}. To supply it by hand, put {name} (plain or "
        ".gz) into a directory and set PHASESCOPE_DATA to it."
    )
    if not download:
        raise DataError(f"tiny Shakespeare cannot be had: no download allowed.\n{by_hand}")
    try:
        folder = fetch([SHAKESPEARE], SHAKESPEARE_MIRRORS, cache_directory() / "text")
    except DataError as error:
        raise DataError(f"tiny Shakespeare cannot be had.\n{error}\n{by_hand}") from error
    found = find_file(SHAKESPEARE, folder)
    if found is None:
        raise DataError(f"{name} has disappeared from {folder}. Load again.")
    return found


def _within(root: Path) -> Path | None:
    found = (find_file(SHAKESPEARE, folder) for folder in (root / "text", root))
    return next((path for path in found if path is not None), None)


class TextMixture:
    """Sequences of a text in characters: as it stands, or one snippet of it repeated.

    The counterpart of `TokenMixture` on real text. A tenth of the text, at its end, is held out;
    snippets and plain sequences of one part never reach into the other. Tokens are numbered in the
    order of the characters' code points.

    Args:
        text: The text.
        n_ctx: Length of the sequences.
        plain_share: Share of sequences that are the text as it stands.
        shortest: Shortest repeated snippet.
        longest: Longest repeated snippet, at most half of the length.
        part: Of the text: what is trained on, or what is held out.

    Raises:
        ValueError: A number is out of range, or the text too short.

    Example:
        >>> mixture = TextMixture("to be or not to be " * 9, n_ctx=8, plain_share=0.0, shortest=3,
        ...     longest=3)
        >>> batch = mixture.sample(1, torch.Generator().manual_seed(0))
        >>> mixture.decode(batch.tokens[0]), batch.repeats[0].tolist()
        ('t tt tt ', [False, False, False, True, True, True, True, True])
    """

    def __init__(
        self,
        text: str,
        *,
        n_ctx: int = 64,
        plain_share: float = 0.5,
        shortest: int = 8,
        longest: int = 24,
        part: Literal["train", "held out"] = "train",
    ) -> None:
        if not 0 <= plain_share <= 1 or not 1 <= shortest <= longest <= n_ctx // 2:
            raise ValueError(
                "the share of plain text must lie in 0 ... 1 and snippets between 1 and half of "
                f"the length, but plain_share={plain_share}, shortest={shortest}, "
                f"longest={longest} and n_ctx={n_ctx}."
            )
        self.characters = "".join(sorted(set(text)))
        """The character of every token."""
        self.d_vocab, self.n_ctx = len(self.characters), n_ctx
        self.plain_share = plain_share
        self.shortest, self.longest = shortest, longest
        places = {character: i for i, character in enumerate(self.characters)}
        tokens = torch.tensor([places[character] for character in text])
        cut = len(tokens) - len(tokens) // 10
        self.tokens: Int64[Tensor, " n"] = tokens[:cut] if part == "train" else tokens[cut:]
        """The part of the text that sequences are drawn from."""
        if part not in ("train", "held out") or len(self.tokens) <= n_ctx:
            raise ValueError(
                f'part must be "train" or "held out" and have more than n_ctx={n_ctx} characters, '
                f"but {part!r} has {len(self.tokens)}."
            )

    def decode(self, tokens: Int64[Tensor, " t"]) -> str:
        """Tokens as text."""
        return "".join(self.characters[i] for i in tokens.tolist())

    def sample(self, n: int, generator: torch.Generator) -> TokenBatch:
        """Draw sequences; each is plain text with probability `plain_share`."""
        plain = torch.rand(n, 1, generator=generator) < self.plain_share
        last = len(self.tokens) - self.n_ctx
        starts = torch.randint(0, last + 1, (n, 1), generator=generator)
        lengths = torch.randint(self.shortest, self.longest + 1, (n, 1), generator=generator)
        places = torch.arange(self.n_ctx)
        offsets = torch.where(plain, places, places % lengths)
        return TokenBatch(self.tokens[starts + offsets], (places >= lengths) & ~plain)
