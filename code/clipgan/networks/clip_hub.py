"""Files of CLIPs from the network: open_clip's published weights, and repositories of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import open_clip
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from clipgan.errors import UserError, one_line

_PATIENCE = 4.0  # seconds to find out whether the hub can be reached; its client would try for half a minute a file


def fetch_from_hub(repository: str, names: Sequence[str]) -> str:
    """The path of the first file of these names that a repository has: from the client's cache or downloaded.

    Raises:
        UserError: no such repository or file; no network.
    """
    reason: Exception | None = None
    with _without_waiting() as reached:
        for name in names:
            try:
                return huggingface_hub.hf_hub_download(repository, name)
            except Exception as error:  # the client raises many kinds; the first says most
                reason = reason or error
    wanted = names[0] if len(names) == 1 else f"any of {', '.join(names)}"
    why = f"{type(reason).__name__}: {reason}" if reached else "the hub cannot be reached, and no cache has it"
    raise UserError(
        f"hf-hub:{repository}: could not fetch {wanted} ({one_line(why, 160)}); download the repository where there is "
        "a network and name its folder by local-dir:PATH"
    )


def find_on_hub(repository: str, names: Sequence[str]) -> list[str]:
    """The paths of those files of these names that a repository has.

    Raises:
        UserError: whether it has them cannot be found out.
    """
    found = []
    with _without_waiting():
        for name in names:
            try:
                found.append(huggingface_hub.hf_hub_download(repository, name))
            except Exception as error:  # the client raises many kinds
                if _says_that_it_is_not_there(error, repository, name):
                    continue
                why = one_line(f"{type(error).__name__}: {error}", 160)
                raise UserError(
                    f"hf-hub:{repository}: could not fetch {name} ({why}); try again, or download the repository where "
                    "there is a network and name its folder by local-dir:PATH"
                ) from None
    return found


def _says_that_it_is_not_there(error: Exception, repository: str, name: str) -> bool:
    """Whether the repository lacks the file, by the hub's answer or by one that the cache remembers."""
    if isinstance(error, LocalEntryNotFoundError):  # the hub was not asked, or did not answer
        return huggingface_hub.try_to_load_from_cache(repository, name) is huggingface_hub._CACHED_NO_EXIST
    return isinstance(error, EntryNotFoundError | FileNotFoundError)


def fetch_published(name: str, tag: str, published: dict, key: str) -> Path:
    """The weights that open_clip publishes for a model under a tag, from a cache or downloaded.

    Args:
        name: of the model.
        tag: of the weights.
        published: what open_clip knows of them.
        key: the config key that names the tag, for the message.

    Raises:
        UserError: they cannot be fetched.
    """
    with _without_waiting() as reached:
        try:
            return Path(open_clip.download_pretrained(published))
        except Exception as error:  # the hub's client raises many kinds
            reason = f"{type(error).__name__}: {error}" if reached else "no network, and no cache has them"
        # Where the client of the hub was not installed before, or by OpenAI's own package, they are kept elsewhere
        url = str(published.get("url") or "")
        if url and Path("~/.cache/clip", os.path.basename(url)).expanduser().is_file():
            with contextlib.suppress(Exception):
                return Path(open_clip.download_pretrained(published, prefer_hf_hub=False))
    raise UserError(
        f"could not fetch the weights {tag!r} of {name} ({one_line(reason, 160)}); set {key} to a weights file, "
        "or to '' for a random start"
    )


@contextlib.contextmanager
def _without_waiting() -> Iterator[bool]:
    """Whether the hub can be reached. Where it cannot, its client looks into its cache only, instead of trying on."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield not constants.HF_HUB_OFFLINE
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    """Whether something answers at an address; assumed where a proxy stands in between."""
    proxies = getproxies()
    if any(proxies.get(kind) for kind in ("https", "http", "all")):
        return True
    parts = urlsplit(endpoint)
    answered = threading.Event()

    def knock() -> None:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE).close()
        except (OSError, ValueError):
            return
        answered.set()

    # In a thread, since looking up a name cannot be given a time limit
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PATIENCE + 0.5)
    return answered.is_set()
