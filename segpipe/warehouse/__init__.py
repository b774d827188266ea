"""The tables: what they hold, how they are written exactly once, how they are read."""
