"""What can be wrong with a mask, and how pixels without a class are marked."""

from __future__ import annotations

# What 255 means in every mask of classes: the pixel has none.
VOID = 255
UNREAD, OTHER_SIZE, UNKNOWN_CODE, ALL_VOID = "unread", "other_size", "unknown_code", "all_void"
FAULTS = (UNREAD, OTHER_SIZE, UNKNOWN_CODE, ALL_VOID)


class UnusableMaskError(ValueError):
    """A mask cannot be used; the text says why, in words that follow its name. fault: one of FAULTS."""

    def __init__(self, reason: str, fault: str = UNREAD) -> None:
        super().__init__(reason)
        self.fault = fault
