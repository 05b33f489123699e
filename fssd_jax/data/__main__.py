import sys

from fssd_jax.data.inventory import command

if __name__ == "__main__":
    sys.exit(command())
