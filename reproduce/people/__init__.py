"""Who stands where: annotations, skeletons, and readers of the data sets' own files."""
