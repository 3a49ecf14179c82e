"""The one exception for what a user can cause and mend."""


class UserError(Exception):
    """Bad input, named in one line: what, where, how to mend it.

    The command lines print the message without a traceback and exit with code 2.
    """
