"""The arena's recipes (each a script of its own), and the datasets that they meet on."""
