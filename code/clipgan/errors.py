"""The one exception that stands for a mistake of the user rather than of the program."""


class UserError(Exception):
    """Something the user can mend: a missing file, an unknown key, a wrong value.

    The message is a line or two that name the file or key and say what would have been right. The scripts print it
    after ``error:`` on standard error and exit with status 2; every other exception keeps its traceback.
    """
