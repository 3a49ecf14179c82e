"""The vocabulary of labels, shared by shards, batches, methods and metrics."""

GENDERS = ("M", "F")
"""Gender classes in logit order; male first, as in MiVOLO's published checkpoints."""

MIN_AGE, MAX_AGE = 0, 120
"""Ages in years that packing accepts."""

OLDEST = 100
"""The assumed end of an open age group such as ``70+``."""

IDENTITY = "identity"
"""The field of a sample's JSON that names the person in the image."""

AGE_STD = "age_std"
"""The field with the standard deviation, in years, of several people's opinions of the age."""

FOLD = "fold"
"""The field with the number of the sample's fold, from 0 on."""

NUMBERS = (AGE_STD, FOLD)
"""Fields that are numbers, also where a sample's JSON has them as text."""

MISSING = ("null", "nan", "na", "n/a")
"""Missing values of databases, pandas and R, without ``none``, which may be a value, as for glasses."""

NO_CODE = 255
"""An unknown gender or group in an index; batches have masks instead."""
