"""What is refused, and how it says so."""


class NotOffered(NotImplementedError):
    """A feature that strobe does not have was asked for; the message names function, argument, what was expected and found."""


def refuse(function: str, argument: str, feature: str, found: object, expected: object = None) -> None:
    """Raises unless `found` is what the argument must be while `feature` is not offered."""
    if found is expected or (expected is not None and found == expected):
        return
    shown = f"a {type(found).__name__}" if hasattr(found, "shape") else repr(found)
    raise NotOffered(f"{function}: {argument}: expected {expected!r} ({feature} is not offered), found {shown}")
