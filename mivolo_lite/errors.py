"""The exceptions for what is not a fault of this program."""


class UserError(Exception):
    """Bad input, named in one line: what, where, how to mend it.

    The command lines print the message without a traceback and exit with ``exit_code``.
    """

    exit_code = 2


class MachineError(UserError):
    """What a machine did to a program with good input: a worker was killed, a rank or a disk went away.

    Its exit code is another one: a batch system may start the same again.
    """

    exit_code = 1


def os_error_line(error: OSError) -> str:
    """The file and the reason, as for people; without the error's number."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*names, error.strerror or " ".join(str(error).split())])
