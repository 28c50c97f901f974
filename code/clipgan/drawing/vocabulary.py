"""The words of training, against which a reader's words are held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from clipgan.networks.clip_encoder import Tokenizer
from clipgan.runs.model_file import LARGEST_VOCABULARY, LONGEST_WORD, MOST_WORDS

_MARKS = 6  # bytes that the file adds to each word: quotes with backslashes, a comma, a space


def vocabulary_of(captions: Iterable[str], tokenize: Tokenizer) -> tuple[str, ...]:
    """The words of captions, in alphabetical order.

    They are cut as ``tokenize`` cuts them (``whole_words``): digits and ``_`` stand alone. What has neither letter nor
    digit is no word. A model's file takes words of ``LONGEST_WORD`` characters, at most ``MOST_WORDS`` of them and
    ``LARGEST_VOCABULARY`` bytes; longer words are left out, and of too many the rarest.
    """
    # Each distinct piece is cut once: a space always ends a word.
    pieces = Counter(piece for caption in captions for piece in caption.split())
    counts: Counter[str] = Counter()
    for piece, count in pieces.items():
        for word in tokenize.split(piece):
            counts[word] += count
    words = [word for word in counts if len(word) <= LONGEST_WORD and any(map(str.isalnum, word))]
    kept, left = [], LARGEST_VOCABULARY
    for word in sorted(words, key=lambda word: (-counts[word], word))[:MOST_WORDS]:
        left -= len(word.encode()) + _MARKS
        if left < 0:
            break
        kept.append(word)
    return tuple(sorted(kept))
