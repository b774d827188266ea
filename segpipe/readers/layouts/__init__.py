"""How archives are laid out: each module claims the files that it understands."""
