"""Model and image make a result: embedding, prompting, automatic masks. No state between calls."""
