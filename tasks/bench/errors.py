"""What a run refuses or loses, each told in one sentence."""


class InputError(ValueError):
    """What was given cannot be used: the sentence names the file or flag, the place, and the remedy."""


class AbsentError(InputError):
    """An optional part is not installed: the sentence says how to get it."""


class CellError(RuntimeError):
    """A cell could not be finished: the sentence says when and why."""
