"""The two ends of a script that are no bugs: a mistake of the user's, and a run that was asked to stop."""


class UserError(Exception):
    """Something the user can mend: a missing file, an unknown key, a wrong value.

    The message is a line or two that name the file or key and say what would have been right. The scripts print it
    after ``error:`` on standard error and exit with status 2; every other exception keeps its traceback.
    """


class Stopped(Exception):
    """A run that was asked to end has saved its state; the message says how to go on. The exit status is 0."""
