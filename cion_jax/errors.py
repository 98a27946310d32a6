"""The one exception that means "the user can mend this": the command prints it as one line, without a traceback."""


class UserError(Exception):
    """A mistake in input or settings; the message names the value, the place and the remedy."""
