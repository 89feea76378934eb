"""How a schedule runs: it takes hold of a diffusers pipeline's own modules, and lets go of them again."""
