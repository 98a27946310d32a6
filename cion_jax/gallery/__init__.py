"""A gallery that one can ask: unit features with a row of facts for each, in a folder that changes all at once."""
