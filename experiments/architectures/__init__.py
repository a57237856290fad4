"""Every technique on every architecture, tried on tiny random models: exact, or refused in words."""
