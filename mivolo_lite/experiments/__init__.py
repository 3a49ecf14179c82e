"""Several trainings of one recipe, over seeds and folds; curves side by side; and the learning-rate range test."""
