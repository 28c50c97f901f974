import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from clipgan.data.safe_pickle import load_pickle
from clipgan.errors import UserError

# How Python 2 with an old NumPy wrote [np.int64(3), np.int64(3)]: protocol 0, names of the old modules.
OLD_SCALARS = (
    "(lp0\ncnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(Vi8\np3\nI00\nI01\ntp4\nRp5\n"
    "(I3\nV<\np6\nNNNI-1\nI-1\nI0\ntp7\nbc_codecs\nencode\np8\n"
    "(V\\u0003\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\np9\nVlatin1\np10\ntp11\nRp12\ntp13\nRp14\nag14\na."
)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_numpy_values_load_in_every_protocol(tmp_path, protocol):
    content = [["a/b", "c"], {"x": 1, 2: (3.5, None, True)}, {4, 5}, np.int64(7), np.float32(0.5), b"\xff"]
    path = write(tmp_path / "a.pickle", pickle.dumps([*content, np.arange(6).reshape(2, 3)], protocol))
    *loaded, array = load_pickle(path)
    assert loaded == content
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_numpy_scalars_under_the_old_module_name_load(tmp_path):
    assert load_pickle(write(tmp_path / "class_info.pickle", OLD_SCALARS.encode())) == [3, 3]


def test_numpy_scalars_under_the_new_module_name_load(tmp_path):
    content = OLD_SCALARS.replace("numpy.core.multiarray", "numpy._core.multiarray")
    assert load_pickle(write(tmp_path / "class_info.pickle", content.encode())) == [3, 3]


def test_byte_strings_of_python_2_become_text(tmp_path):
    # (lp0 … S'…' is how Python 2 pickles a list of str.
    path = write(tmp_path / "filenames.pickle", b"(lp0\nS'001.A/Bird_\\xe9'\np1\na.")
    assert load_pickle(path) == ["001.A/Bird_é"]


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function, name", [(os.system, r"(posix|nt)\.system"), (eval, r"(builtins|__builtin__)\.eval")]
)
def test_a_pickle_that_calls_something_is_refused_by_file_and_name_and_runs_nothing(tmp_path, function, name, protocol):
    trace = tmp_path / "trace"
    argument = f"echo > {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    path = write(tmp_path / "filenames.pickle", pickle.dumps([Attack(function, argument)], protocol))
    with pytest.raises(UserError, match=rf"filenames\.pickle.*{name}"):
        load_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["numpy\nload", "builtins\ngetattr", "numpy.core.multiarray\nfromfile", "io\nopen"])
def test_a_name_that_is_not_allowed_is_refused_even_if_it_is_not_called(tmp_path, name):
    path = write(tmp_path / "a.pickle", f"c{name}\n.".encode())
    with pytest.raises(UserError, match=name.replace("\n", r"\.")):
        load_pickle(path)


def test_attributes_of_an_allowed_name_are_refused(tmp_path):
    path = write(tmp_path / "a.pickle", b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.")
    with pytest.raises(UserError, match=r"dtype\.__class__"):
        load_pickle(path)


def test_the_codec_helper_only_knows_latin1(tmp_path):
    path = write(tmp_path / "a.pickle", b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(UserError, match="rot13"):
        load_pickle(path)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1, 2, 3])[:-2], b"\x80\x63."])
def test_a_file_that_is_no_pickle_is_named(tmp_path, content):
    with pytest.raises(UserError, match=r"broken\.pickle"):
        load_pickle(write(tmp_path / "broken.pickle", content))


def test_a_missing_pickle_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pickle"):
        load_pickle(tmp_path / "none.pickle")
