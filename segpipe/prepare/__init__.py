"""Raw volumes on grids of their own to one grid with the brain alone, and masks back to where they came from."""
