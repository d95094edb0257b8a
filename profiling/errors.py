"""What the user can mend: one sentence each."""


class ProfileError(ValueError):
    """A trace, record or description that cannot be read, or things that cannot be compared."""
