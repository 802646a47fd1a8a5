"""The few exceptions that a caller handles differently. Their messages are written for users."""


class KaryonError(Exception):
    """Base of every error whose message alone tells the user what is wrong and what to do."""


class SheetError(KaryonError):
    """One or more mistakes in a sheet or the configuration; the message lists all of them."""


class SlideError(KaryonError):
    """This slide cannot be processed and trying again will not help; the others go on."""
