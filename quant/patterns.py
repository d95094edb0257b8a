"""Regular expressions out of strangers' files."""

from __future__ import annotations

import re
from typing import Any

from ..models.errors import shortened


def check_pattern(pattern: Any) -> None:
    """Raises ValueError for what is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{shortened(pattern)} is no regular expression ({error})") from error
