"""Arrays in, arrays out: the science, on numpy (and scipy where it works), without files or frameworks."""
