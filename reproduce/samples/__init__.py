"""The CPM data layer: a record and some dice make a training sample."""
