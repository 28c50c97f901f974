"""Messages of errors are one short printable line, whatever a stranger's file brings into them."""

import pickle

import pytest

from clipgan.errors import LONGEST, UserError


@pytest.mark.parametrize(
    "text", ["a\r\nb", "a\0b", "a\u2028b", "a\x1b[31mb", "a\u202eb", "a\xadb", "a\ud800b", "a\u200bb"]
)
def test_what_is_not_printable_becomes_a_space(text):
    message = str(UserError(text))
    assert message.isprintable() and message[0] == "a" and message[-1] == "b" and " " in message


def test_a_long_message_keeps_its_beginning_and_its_end():
    message = str(UserError("/file: " + "x" * 10**6 + " expected a list"))
    assert len(message) <= LONGEST and message.startswith("/file: x") and message.endswith("expected a list")


def test_an_error_crosses_processes():
    error = pickle.loads(pickle.dumps(UserError("größer: a file")))
    assert isinstance(error, UserError) and str(error) == "größer: a file"
