"""The semantic view: values, the vocabulary of primitives, building, and a text form."""
