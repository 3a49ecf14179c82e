"""The vocabulary of labels, shared by shards, batches, methods and metrics."""

GENDERS = ("M", "F")
"""Gender classes in logit order; male first, as in MiVOLO's published checkpoints."""

MIN_AGE, MAX_AGE = 0, 120
"""Ages in years that packing accepts."""

OLDEST = 100
"""Where an age group without an end, as ``70+``, is taken to end: hardly anybody is older."""

IDENTITY = "identity"
"""The field of a sample's JSON that names the person in the image."""

AGE_STD = "age_std"
"""The field with the standard deviation, in years, of several people's opinions of the age."""

FOLD = "fold"
"""The field with the number of the sample's fold, from 0 on."""

NUMBERS = (AGE_STD, FOLD)
"""Fields that are numbers, also where a sample's JSON has them as text."""

MISSING = ("null", "nan", "na", "n/a")
"""What databases, pandas and R write for nothing; ``none`` may be a value, as of glasses."""

NO_CODE = 255
"""Stands in an index's columns where a gender or a group is unknown; batches carry masks instead."""
