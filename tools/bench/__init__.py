"""What the service costs, as ratios in one run: `make bench`. Each module beside `__main__` runs by itself as well."""
