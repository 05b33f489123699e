"""Studies of why FSSD works; reads the library's models, never the experiments."""
