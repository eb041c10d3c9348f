"""Published phenomena, one file each: Config, run, claims, figures."""
