"""Images of prompts, with or without a schedule."""
