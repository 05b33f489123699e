"""`all`: which commands, what they need here, how they are run and shown."""
