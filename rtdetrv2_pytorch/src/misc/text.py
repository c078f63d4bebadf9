"""Names that come from data, made fit for people to read."""


def printable(text: str) -> str:
    """Text that does nothing to a terminal, a log or a page: what cannot be seen is written out.

    Control and formatting characters, and those that are no proper text, become escapes; letters
    of any alphabet stay.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
