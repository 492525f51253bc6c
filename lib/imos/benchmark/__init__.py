"""How fast propagation is on this machine, and what it holds in memory: `python main.py benchmark`."""
