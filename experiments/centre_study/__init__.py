"""What `label_free` measures: where F* is, and how its distances are combined."""
