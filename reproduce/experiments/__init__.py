"""The trainings of the paper's Figures 4, 5 and 6."""
