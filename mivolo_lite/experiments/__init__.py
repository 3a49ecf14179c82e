"""Experiments of several trainings: over seeds, and their curves side by side."""
