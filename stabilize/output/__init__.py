"""How findings are shown: one file a format, each a function of the model's name and its findings."""
